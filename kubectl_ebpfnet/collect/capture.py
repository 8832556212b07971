"""Run `capture`: ask some places every question of `path`, for any destination.

No packet narrows the tables. The kernel's own look-ups, which answer for one packet alone, are
asked between the pods of the capture and for the destinations that it is given. Records are written
as they come, so a capture of long tables needs little memory.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.capture.redact import text as redaction
from kubectl_ebpfnet.capture.write import refuse_existing, write_bundle, write_into
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.resolve import find_pod
from kubectl_ebpfnet.collect.ask.access import BY_AGENT, NodeAccess
from kubectl_ebpfnet.collect.destination import far_end_of_target
from kubectl_ebpfnet.collect.gatherer import Gatherer, Notify
from kubectl_ebpfnet.collect.names import NameRun
from kubectl_ebpfnet.collect.packet import MOST_LOOKUPS
from kubectl_ebpfnet.collect.path import FAR_NODES
from kubectl_ebpfnet.collect.scope import EVERYTHING, Scope
from kubectl_ebpfnet.collect.survey import SurveyTarget, survey
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address


class CaptureDestination(Protocol):
    """Where packets of the pods go."""

    @property
    def kind(self) -> str:
        """`pod`, `service`, `node`, `address`, or `name` for a DNS name."""
        ...

    @property
    def name(self) -> str:
        """The object's name, or the DNS name; "" for an address."""
        ...

    @property
    def namespace(self) -> str:
        """Of a pod that was named with it, "" for that of the run."""
        ...

    @property
    def address(self) -> Address | None:
        """The address, None for an object."""
        ...


@dataclass(frozen=True, slots=True)
class _NodeTarget:
    name: str
    kind: str = "node"


def capture(
    session: Session,
    targets: Sequence[SurveyTarget],
    file: Path | IO[bytes],
    *,
    destinations: Sequence[CaptureDestination] = (),
    redact: bool = False,
    overwrite: bool = False,
    access: NodeAccess = BY_AGENT,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> int:
    """Record a cluster into a file.

    Args:
        session: the connection; pods and workloads are looked for in its namespace.
        targets: the places; without any, every node with an agent.
        file: the zip to write, or an empty open file for it.
        destinations: of packets of the pods, which the kernel is asked to look up; the nodes of
            their far ends are recorded too.
        redact: replace addresses and names.
        overwrite: replace an existing file.
        access: how nodes may be asked; node pods that it deploys are removed at the end.
        timeout: seconds for the whole run; late answers are left out.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Returns:
        The number of records in the file.

    Raises:
        BundleError: the file exists already, or cannot be written.
        NotFound: a target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read a place.
    """
    folder: Path | None = None
    write: Callable[..., int]
    if isinstance(file, Path):
        if not overwrite:
            refuse_existing(file)
        folder, write = file.parent, partial(write_bundle, file, overwrite=overwrite)
    else:
        write = partial(write_into, file)
    substitutes: dict[str, str] = {}
    with (
        _sigterm_raises(),
        Gatherer(
            session, access, timeout=timeout, folder=folder, warn=warn, progress=progress
        ) as gatherer,
    ):
        further, pods, addresses = _far_ends(gatherer, targets, destinations)
        survey(gatherer, [*targets, *further], lambda own: _scope(own, addresses), pods)
        records = gatherer.records()
        if not redact:
            return write(records)
        # The names to replace are known only when every record is there.
        with tempfile.TemporaryDirectory(prefix=".capture.", dir=folder) as name:
            whole = Path(name) / "whole.zip"
            write_bundle(whole, records)
            progress("replacing addresses and names")
            original = open_bundle(whole)
            bundle = redaction.redact(original)
            count = write(bundle.records, bundle.note)
            # On stderr alone: the maker of the file has to know how to ask it.
            for before, after in zip(original.records, bundle.records, strict=True):
                if before.place != after.place:
                    substitutes[str(before.place)] = str(after.place)
            for name, substitute in substitutes.items():
                warn(f"{name} is called {substitute} in it")
            return count


def _far_ends(
    gatherer: Gatherer,
    targets: Sequence[SurveyTarget],
    destinations: Sequence[CaptureDestination],
) -> tuple[list[_NodeTarget], list[Pod], list[Address]]:
    """Return the nodes and pods at the far ends of destinations, and their addresses."""
    nodes: list[str] = []
    pods: dict[tuple[str, str], Pod] = {}
    addresses: list[Address] = []
    for to in destinations:
        for kind, name, namespace, address in _meant(gatherer, targets, to):
            call = partial(far_end_of_target, gatherer.api, kind, name, namespace, address)
            far_end, found = gatherer.needed(gatherer.start(call))
            nodes += far_end.nodes[:FAR_NODES]
            addresses += found[:MOST_LOOKUPS]
            near = [pod for pod in far_end.running_pods if pod.node in nodes]
            pods |= {(pod.namespace, pod.name): pod for pod in near[:FAR_NODES]}
    return [_NodeTarget(name) for name in dict.fromkeys(nodes)], [*pods.values()], addresses


def _meant(
    gatherer: Gatherer, targets: Sequence[SurveyTarget], to: CaptureDestination
) -> Iterator[tuple[str, str, str, Address | None]]:
    """Yield kind, name, namespace and address of a destination; of a DNS name those that each pod
    makes of it, and its nameserver where nothing came back."""
    own = gatherer.session.namespace
    if to.kind != "name":
        yield to.kind.lower(), to.name, to.namespace or own, to.address
        return
    pods = [target for target in targets if target.kind != "node"]
    if not pods:
        raise UsageError(
            f"--to {to.name}: only a pod knows what a name is",
            hint=f"name a pod: capture -o FILE pod/NAME --to {to.name}",
        )
    for target in pods:
        call = partial(find_pod, gatherer.api, target.kind.lower(), target.name, own, gatherer.warn)
        answer = NameRun(gatherer, gatherer.needed(gatherer.start(call)), to.name).run()
        if answer.service is not None:
            yield "service", answer.service.name, answer.service.namespace, None
        server = (answer.nameserver,) if answer.nameserver is not None else ()
        for address in answer.addresses or server:
            yield "address", "", "", address


def _scope(own: tuple[Address, ...], others: Sequence[Address]) -> Scope:
    """Return the scope of a capture: each pod's packets to the other pods and to the destinations.

    Args:
        own: addresses of the pods.
        others: of the destinations.
    """
    return replace(
        EVERYTHING,
        packets=tuple(
            (source, destination)
            for source in own
            for destination in dict.fromkeys((*own, *others))
            if source != destination and source.version == destination.version
        ),
    )


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no part of a file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
