"""Collect the records of `doctor`: the API server's version and this user's rights, and the tools
and the state of every node's agent and node pod.

Node pods are deployed only with --node-access pod.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.capture.open import now
from kubectl_ebpfnet.cluster.agents import NAMESPACES, Agent, find_agents
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import NodePod
from kubectl_ebpfnet.cluster.resolve import name_of
from kubectl_ebpfnet.collect import tasks
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import EXEC, ExecTarget, ask, error_sentence
from kubectl_ebpfnet.collect.ask.node_access import (
    Mode,
    NodeAccess,
    NodeAnswerers,
    PendingNodePod,
    ask_when_running,
)
from kubectl_ebpfnet.collect.ask.shell_script import unavailable_record
from kubectl_ebpfnet.collect.ask.targets import agent_target
from kubectl_ebpfnet.collect.pool import Deadline, Pool
from kubectl_ebpfnet.collect.topics import CHECKUP
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, Unauthorized
from kubectl_ebpfnet.model import doctor
from kubectl_ebpfnet.model.evidence import (
    CLIENT,
    Bundle,
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    node_place,
)

Notify = Callable[[str], object]
_GRACE_SECONDS = 1.0
_WHO = "/apis/authentication.k8s.io/{}/selfsubjectreviews"
_WHO_VERSIONS = ("v1", "v1beta1")
"""Since Kubernetes 1.28 and 1.27; older API servers do not tell the user's name."""


def checkup(
    session: Session,
    access: NodeAccess,
    *,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Bundle:
    """Collect every record that `doctor` reports from.

    Args:
        session: the connection.
        access: how nodes may be asked; only mode `pod` deploys node pods.
        timeout: seconds for the whole run; late answers are left out. None for no limit.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Raises:
        ApiUnreachable, Unauthorized: the API server does not answer this user. Any other refusal is
            a record.
    """
    with NodeAnswerers(session, access, warn) as answerers:
        run = _Checkup(session, access, answerers, Deadline(timeout))
        return bundle_of([_connection(session, access), *run.records(progress)])


class _Checkup:
    """One run, with the calls that it started."""

    def __init__(
        self, session: Session, access: NodeAccess, answerers: NodeAnswerers, deadline: Deadline
    ) -> None:
        self.session, self.access, self.answerers = session, access, answerers
        self.deadline = deadline
        self.api = RecordingApi(session)
        self.pool = Pool()

    def records(self, progress: Notify) -> Iterator[Record]:
        """Yield all records."""
        progress("asking the API server")
        _version(self.api)
        rights = [(right, self._may(right)) for right in doctor.RIGHTS]
        about: list[Future[Any]] = [self.pool.start(self._who)]
        listed = self.pool.start(self.api.nodes)
        agents, why_none = self._agents()
        where = sorted({one.container.namespace for one in agents.values()}) or [NAMESPACES[0]]
        about.append(self.pool.start(lambda: self.api.config_map(where[0], "cilium-config")))
        kept = self._kept()
        nodes = list(dict.fromkeys([*self._names(listed), *agents, *kept]))
        running = list(self._places(nodes, agents, why_none, kept))
        for future in about:
            self._settled(future)
        for future in self._narrower(rights, [self.session.namespace, *where]):
            self._settled(future)
        for count, (place, answer) in enumerate(running):
            progress(f"waiting for {place} ({len(running) - count} to go)")
            yield from self._answered(place, answer)
        yield from self.api.take()

    # --- the API server ---------------------------------------------------------------------------

    def _may(self, right: doctor.Right, namespace: str = "") -> Future[bool]:
        return self.pool.start(
            lambda: self.api.allowed(right.verb, right.resource, namespace, right.name)
        )

    def _narrower(
        self, rights: Iterable[tuple[doctor.Right, Future[bool]]], namespaces: list[str]
    ) -> list[Future[bool]]:
        """Ask for denied rights again, in the namespaces of the user's pods and of the agents."""
        denied = [right for right, answer in rights if self._settled(answer) is False]
        return [
            self._may(right, namespace)
            for right in denied
            if right.namespaced
            for namespace in dict.fromkeys(namespaces)
        ]

    def _who(self) -> None:
        """Record the user as the API server knows them; a server without the API is no failure."""
        for version in _WHO_VERSIONS:
            body = {
                "apiVersion": f"authentication.k8s.io/{version}",
                "kind": "SelfSubjectReview",
            }
            started = now()
            try:
                review = self.api.create(_WHO.format(version), body)
            except ClusterError:
                continue
            status = review.get("status")
            who = status.get("userInfo") if isinstance(status, dict) else None
            if isinstance(who, dict):
                named = {key: who[key] for key in ("username", "groups") if key in who}
                self.api.keep_value(doctor.WHO, named, started)
                return

    def _agents(self) -> tuple[Mapping[str, Agent], str]:
        # In every mode: the report names the version of Cilium.
        try:
            return find_agents(self.api), ""
        except ClusterError as error:
            return {}, error_sentence(error, Deadline(None))

    def _kept(self) -> Mapping[str, NodePod]:
        try:
            return self.answerers.find_pods(self.api)
        except ClusterError:
            return {}  # the record has the reason

    def _names(self, listed: Future[list[dict[str, object]]]) -> list[str]:
        try:
            return [name_of(node) for node in listed.result(self.deadline.left)]
        except (NotDone, ClusterError):
            return []

    def _settled(self, future: Future[Any]) -> object:
        try:
            return future.result(self.deadline.left)
        except (NotDone, ClusterError):
            return None  # the record has the reason, or the answer is late

    # --- nodes ------------------------------------------------------------------------------------

    def _places(
        self,
        nodes: Iterable[str],
        agents: Mapping[str, Agent],
        why_none: str,
        kept: Mapping[str, NodePod],
    ) -> Iterator[tuple[Place, Future[list[Record]] | Record]]:
        """Ask the agent and the node pod of every node; the report has a line for each."""
        nodes = list(nodes)
        if self.answerers.looks_for_agents:
            for node in nodes:
                target = agent_target(agents, node, why_none)
                place = agent_place(node)
                yield place, (self._ask(target) if isinstance(target, ExecTarget) else target)
        pods: dict[str, NodePod | PendingNodePod | Record | ExecTarget] = dict(kept)
        if self.access.mode is Mode.POD:
            self.answerers.set_available({}, "", kept)
            pods = dict(self.answerers.for_nodes(nodes))
        for node, pod in pods.items():
            if isinstance(pod, Record):
                yield node_place(node), pod
            elif not isinstance(pod, ExecTarget):
                yield node_place(node), self._ask_pod(node, pod)

    def _ask(self, target: ExecTarget) -> Future[list[Record]]:
        questions = tasks.shell_questions((*CHECKUP.node, *CHECKUP.cilium), CHECKUP)
        return self.pool.start(lambda: ask(self.session, target, questions, self.deadline))

    def _ask_pod(self, node: str, pod: NodePod | PendingNodePod) -> Future[list[Record]]:
        questions = tasks.node_pod_questions(CHECKUP.node_pod, CHECKUP, node_place(node))
        return self.pool.start(
            lambda: ask_when_running(self.session, self.answerers, pod, questions, self.deadline)
        )

    def _answered(self, place: Place, answer: Future[list[Record]] | Record) -> Iterator[Record]:
        if isinstance(answer, Record):
            yield answer
            return
        left = self.deadline.left
        try:
            yield from answer.result(None if left is None else left + _GRACE_SECONDS)
        except NotDone:
            reason = f"no answer within the {self.deadline} that --timeout allows"
            yield unavailable_record(place, EXEC, reason)


def _version(api: RecordingApi) -> None:
    """Record the server's version. Raises when the server does not answer this user at all."""
    started = now()
    try:
        api.keep_value(doctor.SERVER_VERSION, api.get("/version"), started)
    except (ApiUnreachable, Unauthorized):
        raise
    except ClusterError as error:
        api.keep_failure(doctor.SERVER_VERSION, error)


def _connection(session: Session, access: NodeAccess) -> Record:
    said = {
        "context": session.context,
        "server": session.server,
        "namespace": session.namespace,
        "node_access": access.mode.value,
    }
    stdout = InMemory(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return replace(
        unavailable_record(CLIENT, doctor.CONNECTION, ""), exit_code=0, stdout=stdout, started=now()
    )
