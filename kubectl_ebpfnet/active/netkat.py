"""Run netkat on a node, with its streams on this machine.

netkat itself runs in the node pod (docs/netkat.md); its streams are framed
(model/protocol/frames.py), and it ends with this run, however the run ends.
"""

from __future__ import annotations

from collections.abc import Callable

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import exec_live
from kubectl_ebpfnet.cluster.exec.stdio import LiveStreams
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod, find_node_pods
from kubectl_ebpfnet.cluster.nodepods.nodes import why_not_on
from kubectl_ebpfnet.cluster.nodepods.rehearsal import rehearse
from kubectl_ebpfnet.cluster.nodepods.sides import session_argv
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.cluster.resolve import find_node
from kubectl_ebpfnet.collect.ask.access import NodeAccess
from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, ExecError, Forbidden, tier_of_words
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.protocol.frames import OPTION

Notify = Callable[[str], object]
_SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors on this machine; `stdin` is None if closed, `pcap` without --pcap."""

    stdin: int | None
    stdout: int
    stderr: int
    pcap: int | None = None


def check_node(session: Session, node: str) -> None:
    """Raise NotFound when there is no such node; do nothing where nodes may not be read."""
    try:
        find_node(Api(session), node)
    except Forbidden:
        return


def next_hop(session: Session, node: str, version: int) -> str:
    """Return the address of a node, for --via.

    Args:
        session: the connection.
        node: name of the node.
        version: IP version; 0 for the node's first address.

    Raises:
        NotFound: there is no such node.
        ClusterError: the node has no InternalIP of that version, or cannot be read.
    """
    for address in find_node(Api(session), node).internal_addresses:
        if version in (0, address.version):
            return str(address)
    kind = f"IPv{version} " if version else ""
    raise ClusterError(f"--via node/{node}: it has no InternalIP with an {kind}address")


def run(
    session: Session,
    access: NodeAccess,
    node: str,
    arguments: tuple[str, ...],
    streams: Streams,
    *,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> int:
    """Run netkat on a node until it ends.

    Args:
        session: the connection.
        access: mode `pod`, with the options of the node pod.
        node: name of the node.
        arguments: of netkat's command line.
        streams: descriptors of its streams.
        timeout: seconds for the node pod to start; None for the default.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Returns:
        netkat's exit code.

    Raises:
        ClusterError: no node pod can be had, or the connection to it was lost.
        OSError: an output cannot be written; BrokenPipeError when its reader is gone.
        EbpfnetError: stdin cannot be read.
    """
    deadline = Deadline(timeout)
    with NodeAnswerers(session, access, warn) as answerers:
        progress("asking the API server")
        looking = Pool().start(lambda: find_node_pods(Api(session), session.namespace))
        try:
            kept = looking.result(deadline.left)
        except TimeoutError:
            raise ApiUnreachable(f"{session.server}: {deadline.missed()}") from None
        answerers.set_available({}, "", kept)
        if access.dry_run is not DryRun.NONE:
            if node not in kept:
                _rehearse(session, access, node, deadline, warn)
            warn(f"netkat {' '.join(arguments)} on {node}{DryRun.CLIENT.suffix}")
            return 0
        pod = _node_pod(answerers, node, deadline, progress)
        argv = session_argv("netkat", OPTION, *arguments)
        progress("")
        code = _exec(session, pod.container, argv, streams)
        if code > _SIGNALLED:
            warn(f"netkat was ended on {node} by signal {code - _SIGNALLED}")
        return code


def _rehearse(
    session: Session, access: NodeAccess, node: str, deadline: Deadline, warn: Notify
) -> None:
    """Say what the deployment on a node would create; raise ClusterError where none can start."""
    api = Api(session)
    if why := why_not_on(api, node):
        raise ClusterError(why)
    for line in rehearse(api, [node], access.options, access.dry_run, deadline.left):
        warn(line)


def _node_pod(answerers: NodeAnswerers, node: str, deadline: Deadline, progress: Notify) -> NodePod:
    found = answerers.for_nodes([node], deadline)[node]
    if isinstance(found, NodePodExec):
        progress(f"waiting for the node pod on {node}")
        return found.ready(deadline)
    if not isinstance(found, Record):
        raise ClusterError(f"node {node}: it cannot be asked")
    tier = tier_of_words(found.denied) if found.denied else ""
    hint = f"missing permission: {found.denied} ({tier})" if tier else ""
    raise ClusterError(f"node {node}: {found.error}", hint=hint)


def _exec(session: Session, container: Container, argv: tuple[str, ...], streams: Streams) -> int:
    with LiveStreams(streams.stdin, streams.stdout, streams.stderr, streams.pcap) as live_streams:
        try:
            code = exec_live(session, container, argv, live_streams)
        except ExecError:
            live_streams.flush()
            raise
        live_streams.flush()
    return code
