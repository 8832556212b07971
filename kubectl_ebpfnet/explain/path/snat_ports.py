"""Ports that source NAT has left: each flow of a node to one address and port needs another one.

Sources: Cilium bpf/lib/nat.h (snat_v4_new_mapping: the flow's own port, else a random one of the
range and those behind it, SNAT_COLLISION_RETRIES times, 32 or 128; then DROP_NAT_NO_MAPPING);
Linux net/netfilter/nf_nat_core.c (nf_nat_l4proto_unique_tuple; a tuple that is taken is refused
when the connection is confirmed, nf_conntrack_core.c). Entries hold their port until they are
collected, whether the connection lives or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.matching import matching_lines
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text, has_ports, protocol_name
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Severity, State
from kubectl_ebpfnet.model.shell import word

NEARLY = 0.9
"""Part of the ports that is in use, above which some new flows find none."""
HARDLY = 0.99
"""Part above which a quarter of them or more finds none, of 128 tries."""
_LAST_NODE_PORT = 32767
UNPRIVILEGED = range(1024, 1 << 16)
"""Ports that netfilter may give where the rule names none, to a flow from one of them."""


@dataclass(frozen=True, slots=True)
class PortUse:
    """The ports of one source address that are in use to one destination.

    Attributes:
        used: of which entries were seen with this source.
        at_most: with those whose source was not seen.
        evidence: of the table.
    """

    used: int
    at_most: int
    evidence: tuple[Evidence, ...]


def by_cilium(
    walk: PathBuilder, here: PacketState, node: NodeView, source: Address, where: Where
) -> bool:
    """Tell whether Cilium finds a port for a new flow; drop the packet where it finds none.

    Args:
        walk: takes hops and findings.
        here: the packet before translation.
        node: that translates.
        source: the new source address.
        where: of the hop.
    """
    flow = here.packet.flow
    ports = range((node.config.node_port_last or _LAST_NODE_PORT) + 1, 1 << 16)
    if not has_ports(flow.protocol):
        ports = range(1 << 16)  # echo identifiers
    elif flow.destination_port is None:
        return True
    found = in_nat_map(node, flow, source, len(ports))
    if found is None:
        walk.presumed.add(
            f"source NAT of {node.name} has ports left to {flow.destination}", Look.FIRST
        )
        return True
    drop = "No mapping for NAT masquerade"
    return _judge(walk, here, node, source, where, ports, found, drop)


def by_netfilter(
    walk: PathBuilder, here: PacketState, node: NodeView, source: Address, ports: range
) -> bool:
    """Tell whether netfilter finds a port for a new flow; drop the packet where it finds none.

    Args:
        walk: takes hops and findings.
        here: the packet before translation.
        node: that translates.
        source: the new source address.
        ports: that the rule may give.
    """
    flow = here.packet.flow
    if not has_ports(flow.protocol) or flow.destination_port is None:
        return True
    found = _in_conntrack(node, flow, source, ports)
    if found is None:
        if ports != UNPRIVILEGED:  # a range that a rule names; the others are 64,512
            walk.presumed.add(
                f"netfilter of {node.name} has ports left to {flow.destination}", Look.FIRST
            )
        return True
    drop = "nf_conntrack refuses a tuple that is taken"
    where = here.on_node(HopKind.NAT)
    return _judge(walk, here, node, source, where, ports, found, drop)


def _judge(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    source: Address,
    where: Where,
    ports: range,
    found: PortUse,
    drop: str,
) -> bool:
    flow = here.packet.flow
    to = f"{endpoint_text(flow.destination, flow.destination_port)}"
    kind = "ports" if has_ports(flow.protocol) else "identifiers"
    most = len(ports)
    said = f"{found.at_most:,} of {most:,} {kind} of {source} are in use to {to}"
    detail = (
        f"Every flow of {node.name} to {to}/{protocol_name(flow.protocol)} needs another one "
        f"({ports[0]} to {ports[-1]}), and keeps it until its entry is collected. Let fewer "
        "connections go there, or keep them open; or give the node more addresses (egress "
        "gateway), or the service more."
    )
    fix = Fix(
        "See who holds them.",
        f"kubectl ebpfnet flows node/{word(node.name)} --to {flow.destination}",
    )
    if found.used >= most:
        walk.drop(
            *where,
            f"no port is left for source NAT to {to}: {drop}" if kind == "ports"
            else f"no identifier is left for source NAT to {to}: {drop}",
            State.DERIVED, here.packet, found.evidence,
            title=f"source NAT on {node.name} has no room for one more flow: {said}",
            detail=detail, fix=fix,
        )  # fmt: skip
        return False
    if found.at_most >= NEARLY * most:
        title = f"source NAT on {node.name} has little room: {said}"
        walk.finding(Severity.WARNING, title, detail, found.evidence)
        if found.at_most >= HARDLY * most:
            walk.doubt(f"{said}: a new flow may find none ({drop})", Decides.DROP, fix)
    return True


def in_nat_map(node: NodeView, flow: Flow, source: Address, most: int) -> PortUse | None:
    """Return the ports of a source address that Cilium's NAT map has in use to a destination.

    Args:
        node: whose map is read.
        flow: to the destination.
        source: the new source address.
        most: ports that there are; far fewer entries are not looked at one by one.

    Returns:
        None where the entries of other pods were not read.
    """
    port = flow.destination_port or 0
    words = q.snat_words(flow.protocol, flow.destination, port)
    counted = node[q.SNAT_USE.about(*words)]
    if counted.known:
        own = [use for use in counted.facts if use.source == source]
        used = sum(use.flows for use in own)
        others = max((use.flows for use in counted.facts if use.source is None), default=0)
        if not own and others >= NEARLY * most:
            return None  # it has fewer than were counted of a large map
        return PortUse(used, used, cite.of(counted.record, *(use.span for use in own)))
    state = node.table_state(q.NAT)
    if not state.known or state.record is None:
        return None
    text = endpoint_text(flow.destination, port)
    shown = (f" -> {text} XLATE_SRC", f'"destination":"{flow.destination}"')
    bound = _lines_to(state.record, shown)
    if bound is None or bound < NEARLY * most:
        return None if bound is None else PortUse(0, bound, cite.of(state.record))
    used = sum(
        line.fact.direction == "OUT"
        and line.fact.address == source
        and _same_end(line.fact.flow, flow)
        for line in node.lines(q.NAT, shown)
    )
    return _with_unseen(state.record, used)


def _in_conntrack(node: NodeView, flow: Flow, source: Address, ports: range) -> PortUse | None:
    state = node.table_state(q.CONNTRACK)
    if not state.known or state.record is None:
        return None
    shown = (f"dst={flow.destination} ", f"dst={expanded(flow.destination)} ", '"original":')
    bound = _lines_to(state.record, shown)
    if bound is not None and bound < NEARLY * len(ports):
        return PortUse(0, bound, cite.of(state.record))
    sent = (line.fact.translated() for line in node.lines(q.CONNTRACK, shown))
    taken = {
        new.source_port
        for new in sent
        if _same_end(new, flow) and new.source == source and new.source_port in ports
    }
    if bound is None and len(taken) < len(ports):
        return None  # the flows of other pods were not read
    return _with_unseen(state.record, len(taken))


def _same_end(one: Flow, other: Flow) -> bool:
    return (one.protocol, one.destination, one.destination_port) == (
        other.protocol,
        other.destination,
        other.destination_port,
    )


def _lines_to(record: Record, shown: Sequence[str]) -> int | None:
    """Return how many entries may be to the destination; None where that was not counted."""
    if record.line_filter:
        return None if record.counts is None else record.counts.sought
    needles = [text.encode() for text in shown]
    return sum(1 for _ in matching_lines(record.stdout, needles))


def _with_unseen(record: Record, used: int) -> PortUse:
    """Add the entries that were counted where the table was printed."""
    unseen = record.counts.sought if record.line_filter and record.counts is not None else 0
    return PortUse(used, max(used, unseen), cite.of(record))
