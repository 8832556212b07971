"""Look a DNS name up as a pod does: in the pod, else by the cluster's objects, else here.

1  the pod: its resolv.conf, hosts and nsswitch.conf, and getent, by one exec
2  the pod: nslookup of each name that its resolver would ask for, where getent says nothing
3  without either: the Services that the name may be, and this machine's resolver
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kubectl_ebpfnet.collect.ask.answerer import Answerer
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.resolver import LocalResolver, resolve_question
from kubectl_ebpfnet.collect.ask.targets import pod_answerer
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.explain.path.names import cluster_names, look_up
from kubectl_ebpfnet.explain.path.resolver import NameAnswer, NameSources, resolver_config
from kubectl_ebpfnet.model.catalogue import NAME_LOOKUP, NSLOOKUP
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.kube import Pod, Service
from kubectl_ebpfnet.model.resolver import LookupOutcome
from kubectl_ebpfnet.parse import kube

SECONDS = 8.0
"""How long a look-up may take: glibc waits 5 s for a nameserver."""
_MOST_NAMES = 8
_UNCLEAR = (LookupOutcome.NOTHING, LookupOutcome.NOT_ASKED)


@dataclass(slots=True)
class NameRun:
    """The look-up of one name. Its methods run in the caller's thread.

    Attributes:
        gatherer: asks; it has the records of every step.
        pod: as which to ask.
        name: to look up.
    """

    gatherer: Gatherer
    pod: Pod
    name: str

    def run(self) -> NameAnswer:
        """Look the name up, by as few steps as tell what it is."""
        answerer = pod_answerer(self.gatherer.session, self.pod)
        sources = NameSources(self.pod.namespace, self.pod, [])
        if isinstance(answerer, Record):
            self.gatherer.ask(answerer, ())
            return self._outside(replace(sources, inside=[answerer]))
        files = Scope(Need.NAMES).questions(answerer.place)
        asked = [*files, Question(NAME_LOOKUP.about(self.name), answerer.place)]
        sources = replace(sources, inside=self._ask(answerer, asked))
        answer = look_up(self.name, sources)
        if answer.outcome in _UNCLEAR and any(record.ran for record in sources.inside):
            config, _ = resolver_config(sources)
            names = config.candidates(self.name)[:_MOST_NAMES]
            more = [Question(NSLOOKUP.about(f"{each}."), answerer.place) for each in names]
            inside = [*sources.inside, *self._ask(answerer, more)]
            sources = replace(sources, inside=inside)
            answer = look_up(self.name, sources)
        if answer.outcome is LookupOutcome.NOT_ASKED or not answer.by_pod:
            return self._outside(sources)
        return answer

    def _ask(self, answerer: Answerer, questions: list[Question]) -> list[Record]:
        """Ask the pod, for SECONDS at most."""
        left = self.gatherer.deadline.left
        until = Deadline(SECONDS if left is None else min(SECONDS, left), "")
        future = self.gatherer.ask_first(answerer, questions, deadline=until)
        return self.gatherer.tried(future)[0] or []

    def _outside(self, sources: NameSources) -> NameAnswer:
        """Ask the API server for the Services that the name may be, then this machine."""
        start, tried = self.gatherer.start, self.gatherer.tried
        wanted = [("kube-system", "kube-dns"), *cluster_names(self.name, sources)][:_MOST_NAMES]
        reads = [start(partial(self._service, *each)) for each in dict.fromkeys(wanted)]
        services = [found for read in reads if (found := tried(read)[0]) is not None]
        sources = replace(sources, services=services)
        answer = look_up(self.name, sources)
        if answer.outcome is LookupOutcome.FOUND:
            return answer
        future = self.gatherer.ask_first(LocalResolver(), [resolve_question(self.name)])
        return look_up(self.name, replace(sources, here=tried(future)[0] or []))

    def _service(self, namespace: str, name: str) -> Service | None:
        try:
            return kube.service(self.gatherer.api.service(namespace, name))
        except ClusterError:
            return None  # the record has the reason
