"""A live run of `capture`: all that `path` would ask of some places, for any destination.

Nothing is filtered by a packet, and records are written as they come, so a capture of long tables
needs little memory.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol, cast

from kubectl_ebpfnet.cluster.agents import Agent, find_agents
from kubectl_ebpfnet.cluster.api import Object
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, resolve
from kubectl_ebpfnet.cluster.session import Session
from kubectl_ebpfnet.collect import redact as redaction
from kubectl_ebpfnet.collect import tasks
from kubectl_ebpfnet.collect.asking import EXEC, Spot, ask, words_of
from kubectl_ebpfnet.collect.batch import Asked, silent
from kubectl_ebpfnet.collect.bundle_file import open_bundle, write_bundle
from kubectl_ebpfnet.collect.jobs import Deadline, Jobs
from kubectl_ebpfnet.collect.places import agent_spot, node_of, pod_spot, shares_node
from kubectl_ebpfnet.collect.reads import RecordingApi
from kubectl_ebpfnet.collect.spool import Spool
from kubectl_ebpfnet.errors import BundleError, ClusterError
from kubectl_ebpfnet.model.evidence import Place, Record

Say = Callable[[str], object]
_GRACE_SECONDS = 1.0
_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_CILIUM_LISTS = (
    "ciliumnodes",
    "ciliumendpoints",
    "ciliumidentities",
    "ciliumnetworkpolicies",
    "ciliumclusterwidenetworkpolicies",
)


class Wanted(Protocol):
    """A place that was named: `pod`, `node`, or the kind of a workload, and its name."""

    @property
    def kind(self) -> str:
        """`pod`, `node`, `Deployment`, …"""
        ...

    @property
    def name(self) -> str:
        """The object's."""
        ...


def capture(
    session: Session,
    wanted: Iterable[Wanted],
    file: str | Path,
    *,
    redact: bool = False,
    overwrite: bool = False,
    timeout: float | None = None,
    say: Say = lambda _: None,
    progress: Say = lambda _: None,
) -> int:
    """Record a cluster into a file.

    Args:
        session: the connection; pods and workloads are looked for in its namespace.
        wanted: the places; when there are none, every node with an agent.
        file: to write, see bundle_file.write_bundle.
        redact: replace addresses and names.
        overwrite: replace a file that is there.
        timeout, say, progress: as for runner.collect_path.

    Returns:
        How many records the file has.

    Raises:
        BundleError: the file is there already, or cannot be written.
        NotFound: a place is not there.
        ClusterError: the API server cannot be reached, or does not let this user read a place.
    """
    target = Path(file)
    if not overwrite and target.exists():
        raise BundleError(f"{target} is there already", hint="give another name, or --force")
    called: dict[str, str] = {}
    with _sigterm_raises():
        records = collect_capture(
            session, wanted, folder=target.parent, timeout=timeout, say=say, progress=progress
        )
        if not redact:
            return write_bundle(target, records, overwrite=overwrite)
        # What has to be replaced is known when all is there.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            whole = Path(name) / "whole.zip"
            write_bundle(whole, records)
            progress("replacing addresses and names")
            original = open_bundle(whole)
            bundle = redaction.redact(original)
            count = write_bundle(target, bundle.records, bundle.note, overwrite=overwrite)
            # Said here and written nowhere: whoever made the file knows what to ask it.
            for before, after in zip(original.records, bundle.records, strict=True):
                if before.place != after.place:
                    called[str(before.place)] = str(after.place)
            for name, substitute in called.items():
                say(f"{name} is called {substitute} in it")
            return count


def collect_capture(
    session: Session,
    wanted: Iterable[Wanted],
    *,
    folder: Path | None = None,
    timeout: float | None = None,
    say: Say = lambda _: None,
    progress: Say = lambda _: None,
) -> Iterator[Record]:
    """The records of a capture, as they come.

    Args:
        folder: where long outputs wait, in files without a name; a temporary one when None.
        session, wanted, timeout, say, progress: as for `capture`.

    Raises:
        NotFound, ClusterError: as `capture`, at the first record.
    """
    deadline, api, jobs = Deadline(timeout), RecordingApi(session), Jobs()
    progress("asking the API server")
    lists = [jobs.start(call) for call in _lists(api)]
    agents, why_none = _agents(api)
    where = next((agent.container.namespace for agent in agents.values()), "kube-system")
    lists.append(jobs.start(lambda: api.config_map(where, "cilium-config")))
    pods, nodes = _places(api, wanted, session.namespace, say)
    if not pods and not nodes:
        nodes = list(agents)
    running: list[tuple[Place, Future[list[Record]]]] = []
    for spot_or_record, lanes in _spots(pods, nodes, agents, why_none):
        if isinstance(spot_or_record, Record):
            yield spot_or_record
            continue
        for lane in lanes:
            call = _asker(session, spot_or_record, lane, deadline, folder)
            running.append((spot_or_record.place, jobs.start(call)))
    for future in lists:
        _settled(future, deadline)
    yield from api.take()
    for count, (place, answer) in enumerate(running):
        progress(f"waiting for {place} ({len(running) - count} to go)")
        left = deadline.left
        try:
            yield from answer.result(None if left is None else left + _GRACE_SECONDS)
        except NotDone:
            reason = f"no answer within the {deadline} that --timeout allows"
            yield silent(place, EXEC, reason)
        running[count] = (place, _DONE)  # its outputs are written: let go of them


_DONE: Future[list[Record]] = Future()


def _asker(
    session: Session,
    spot: Spot,
    lane: list[Asked],
    deadline: Deadline,
    folder: Path | None,
) -> Callable[[], list[Record]]:
    return lambda: ask(session, spot, lane, deadline, lambda: Spool(folder))


def _lists(api: RecordingApi) -> list[Callable[[], object]]:
    calls: list[Callable[[], object]] = [
        api.pods,
        api.nodes,
        api.services,
        api.endpoint_slices,
        lambda: api.list(_POLICIES),
    ]
    calls += [lambda resource=resource: api.cilium(resource) for resource in _CILIUM_LISTS]  # type: ignore[misc]
    return calls


def _agents(api: RecordingApi) -> tuple[Mapping[str, Agent], str]:
    try:
        return find_agents(api), ""
    except ClusterError as error:
        return {}, words_of(error, Deadline(None))


def _places(
    api: RecordingApi, wanted: Iterable[Wanted], namespace: str, say: Say
) -> tuple[list[Object], list[str]]:
    """The pods that were named, and the nodes: named, or of the pods."""
    pods: list[Object] = []
    nodes: list[str] = []
    for place in wanted:
        ref = TargetRef(cast(Kind, place.kind.lower()), place.name)
        found = resolve(api, ref, namespace, say)
        if ref.kind == "node":
            nodes.append(ref.name)
            continue
        pods.append(found)
        if node_of(found):
            nodes.append(node_of(found))
    return pods, list(dict.fromkeys(nodes))


def _spots(
    pods: list[Object], nodes: list[str], agents: Mapping[str, Agent], why_none: str
) -> Iterator[tuple[Spot | Record, list[list[Asked]]]]:
    for pod in pods:
        if not shares_node(pod):
            yield pod_spot(pod), [tasks.to_ask(tasks.POD_TASKS, None)]
    for node in nodes:
        yield agent_spot(agents, node, why_none), tasks.agent_lanes(None)


def _settled(future: Future[object], deadline: Deadline) -> None:
    try:
        future.result(deadline.left)
    except (NotDone, ClusterError):
        return  # its record says why, or it is late


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """While inside, SIGTERM unwinds like Ctrl-C does, so that no part of a file is left."""
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
