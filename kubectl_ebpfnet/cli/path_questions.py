"""What answers the questions of `path`: a live cluster, or a capture with --from. Questions come
one after the other, or the same again.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kubectl_ebpfnet.cli.asked import Asked
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import ClusterError, NotFound
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.request import Further, PathRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.kube import Pod
    from kubectl_ebpfnet.model.path import Path

RequestOf = Callable[[str], PathRequest]
"""Namespace of the run → the request."""


@dataclass(frozen=True, slots=True)
class SeveralPods:
    """The pods that ask: of a workload, or those with labels.

    Attributes:
        kind, name: of the workload, "" where labels choose.
        selector: of the labels, "" for a workload.
    """

    kind: str = ""
    name: str = ""
    selector: str = ""

    @property
    def title(self) -> str:
        """`deployment/web`, or the selector."""
        return f"{self.kind.lower()}/{self.name}" if self.kind else self.selector


class Answers(Protocol):
    """Answers questions. Both methods raise EbpfnetError."""

    def look(self, request_of: RequestOf, /) -> tuple[Path, Bundle]:
        """Read what a question needs, and explain it."""
        ...

    def pods(self, wanted: SeveralPods, /) -> list[Pod]:
        """Return pods that have not ended, by name. Raises NotFound where there are none."""
        ...


@contextlib.contextmanager
def open_answers(
    capture: str,
    global_flags: GlobalFlags,
    timeout: float | None,
    progress: Progress,
    preload: Sequence[str] = (),
) -> Iterator[Answers]:
    """Give what answers; node pods that it deploys serve every question, and go at the end.

    Args:
        capture: file of --from, `demo` for the built-in capture, "" for the live cluster.
        global_flags: kubectl's flags and node access.
        timeout: seconds to wait for answers to one question, None for no limit.
        progress: shows the current step and warnings.
        preload: modules to import while places answer.

    Raises:
        EbpfnetError: the capture or the cluster cannot be read.
    """
    if capture:
        namespace = global_flags.namespace or "default"
        yield _Captured(open_capture(capture), namespace, progress, global_flags.asked(capture))
        return
    with connect(global_flags, progress) as (session, access):
        from kubectl_ebpfnet.collect.gatherer import Gatherer

        with Gatherer(session, access, warn=_Once(progress), progress=progress.show) as gatherer:
            yield _Live(gatherer, timeout, progress, preload, global_flags.asked())


class _Once:
    """Prints each warning once, however often the question is asked."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._progress.warn(line)


def _explained(
    progress: Progress, into: list[Path], request: PathRequest, bundle: Bundle
) -> Further:
    from kubectl_ebpfnet.explain.path.walk import explained

    progress.show("explaining")
    path, more = explained(request, bundle)
    into[:] = [path]
    return more


class _Captured:
    """Answers from a capture."""

    def __init__(self, bundle: Bundle, namespace: str, progress: Progress, asked: Asked) -> None:
        self._bundle, self._namespace = bundle, namespace
        self._progress, self._asked = progress, asked

    def look(self, request_of: RequestOf) -> tuple[Path, Bundle]:
        """Explain what was recorded."""
        paths: list[Path] = []
        _explained(self._progress, paths, request_of(self._namespace), self._bundle)
        return self._asked.path(paths[0]), self._bundle

    def pods(self, wanted: SeveralPods) -> list[Pod]:
        """Return the pods that were recorded."""
        from kubectl_ebpfnet.explain.views.cluster import ClusterView
        from kubectl_ebpfnet.explain.views.placed import pods_in_capture
        from kubectl_ebpfnet.model.label_selector import label_selector

        cluster, terms = ClusterView(self._bundle), label_selector(wanted.selector)
        pods = [
            pod
            for pod in cluster.kube.pods
            if pod.namespace == self._namespace
            and (
                pod.belongs_to(wanted.kind, wanted.name)
                if wanted.kind
                else all(term.holds(dict(pod.labels)) for term in terms)
            )
        ]
        hint = "" if pods else pods_in_capture(cluster, self._namespace, wanted.name)
        return _not_ended(pods, wanted, self._namespace, hint)


class _Live:
    """Asks a cluster."""

    def __init__(
        self,
        gatherer: Gatherer,
        timeout: float | None,
        progress: Progress,
        preload: Sequence[str],
        asked: Asked,
    ) -> None:
        self._gatherer, self._timeout, self._asked = gatherer, timeout, asked
        self._progress, self._preload = progress, preload

    def look(self, request_of: RequestOf) -> tuple[Path, Bundle]:
        """Ask the cluster."""
        from kubectl_ebpfnet.collect.path import look

        paths: list[Path] = []
        self._gatherer.begin(self._timeout)
        _, bundle = look(
            self._gatherer,
            request_of(self._gatherer.session.namespace),
            meanwhile=partial(_import, self._preload),
            further=partial(_explained, self._progress, paths),
        )
        return self._asked.path(paths[0]), bundle

    def pods(self, wanted: SeveralPods) -> list[Pod]:
        """Ask the API server."""
        from kubectl_ebpfnet.cluster.resolve import find_pods

        gatherer = self._gatherer
        gatherer.begin(self._timeout)
        namespace = gatherer.session.namespace
        find = partial(
            find_pods, gatherer.api, wanted.kind.lower(), wanted.name, namespace, wanted.selector
        )
        return _not_ended(gatherer.needed(gatherer.start(find)), wanted, namespace)


def _not_ended(pods: list[Pod], wanted: SeveralPods, namespace: str, hint: str = "") -> list[Pod]:
    found = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    if not found:
        why = hint or ("none of them runs" if pods else f"`kubectl get pods -n {namespace}`")
        if wanted.selector:
            raise ClusterError(
                f"no pod in namespace {namespace} has the labels {wanted.title}", hint=why
            )
        raise NotFound("pods", wanted.title, namespace, hint=why)
    return sorted(found, key=lambda pod: pod.name)


def _import(modules: Sequence[str]) -> None:
    """Import modules while places answer."""
    # The code that needs the module imports it again, and raises the error there.
    with contextlib.suppress(Exception):
        for module in modules:
            importlib.import_module(module)
