"""What stands where the node's routing ends a packet's way: no route, a sysctl, a missing fact."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.decision import Decision, by_own_rule
from kubectl_ebpfnet.explain.kernel.forwarding import Barrier
from kubectl_ebpfnet.explain.path.stages.route_evidence import route_evidence
from kubectl_ebpfnet.explain.path.stages.route_fix import delete_what_refuses
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import FibAnswer
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, HopPlace, State
from kubectl_ebpfnet.model.shell import word


def end_not_read(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    place: HopPlace,
    destination: Address,
    reason: str,
) -> None:
    """End the walk where the node's routes were not read; the arguments are end_not_known's."""
    record = node[q.ROUTES].record
    decides = Decides.WAY
    if record is None or not record.ok:
        decides = walk.if_unread(decides, f"the routes of node {here.node}")
    end_not_known(walk, here, node, place, destination, reason, decides)


def end_not_known(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    place: HopPlace,
    destination: Address,
    reason: str,
    decides: Decides = Decides.WAY,
) -> None:
    """End the walk where the route is not known.

    Args:
        walk: takes the hop.
        here: the packet on the node.
        node: the node.
        place: who looks the route up: the node's stack, or Cilium.
        destination: of the packet.
        reason: which fact is missing.
        decides: what may become of the packet.
    """
    fix = fix_of(here, reason, destination)
    walk.hop(
        place, here.node, here.node, HopKind.ROUTE, f"the route to {destination}",
        State.UNKNOWN, here.packet, cite.whole(node[q.ROUTES].record), reason=reason,
        decides=decides, fix=fix,
    )  # fmt: skip
    walk.unknown(reason, fix)


def fix_of(here: PacketState, reason: str, destination: Address) -> Fix:
    """Return how to get a route that is not known.

    Args:
        here: the packet on the node.
        reason: why it is not known.
        destination: of the packet.
    """
    version = "-6 " if destination.version == 6 else ""
    if "not read" in reason:
        return Fix(
            f"List every table and rule of node {here.node}.",
            f"ip {version}route show table all; ip {version}rule",
        )
    by = f" iif {word(here.in_device)}" if here.in_device else ""
    source = (here.packet.outer or here.packet.flow).source
    return Fix(
        f"Ask the kernel of node {here.node} for this packet, with its mark, ports and uid.",
        f"ip {version}route get {destination} from {source}{by}",
    )


def sysctl_hop(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    barrier: Barrier,
    proof: tuple[Evidence, ...],
) -> bool:
    """Add the hop of a sysctl; return whether it drops the packet.

    Args:
        walk: takes the hop.
        here: the packet on the node.
        node: the node.
        barrier: the sysctl.
        proof: further evidence.
    """
    spans = [fact.span for name in barrier.sysctls for fact in node.having(q.SYSCTLS, name, "name")]
    evidence = cite.of(node[q.SYSCTLS].record, *spans) + proof
    if barrier.undecided:
        walk.hop(
            *here.on_node(HopKind.ROUTE), barrier.text, State.UNKNOWN, here.packet, evidence,
            reason=barrier.undecided, decides=Decides.DROP,
        )  # fmt: skip
        return False
    detail = f"`sysctl -w {word(barrier.setting)}` on {here.node} lets it pass."
    walk.drop(
        *here.on_node(HopKind.ROUTE),
        f"{barrier.text} on {here.node}",
        State.DERIVED,
        here.packet,
        evidence,
        title=f"node {here.node}: {barrier.text}",
        detail=detail,
        cause=f"{barrier.text} on {here.node}",
        fix=Fix(f"Let node {here.node} forward it.", f"sysctl -w {word(barrier.setting)}"),
    )
    return True


def drop_refused(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    decision: Decision,
    destination: Address,
    proof: tuple[Evidence, ...],
    answer: FibAnswer | None,
) -> None:
    """Drop a packet that has no usable route.

    Args:
        walk: takes the hop and its finding.
        here: the packet on the node.
        node: the node.
        decision: that there is none.
        destination: of the packet.
        proof: of the decision, beside the route's own.
        answer: the kernel's own look-up, None where none is recorded.
    """
    version = destination.version
    rule = decision.rule if by_own_rule(decision) or decision.route is None else None
    evidence = route_evidence(node, decision)
    if rule is not None:
        evidence += cite.of(node.rules(version).record, rule.span)
    by = f" iif {word(here.in_device)}" if here.in_device else ""
    source = (here.packet.outer or here.packet.flow).source
    command = f"ip route get {destination} from {source}{by}"
    detail = f"`{command}` on the node shows the same."
    if decision.refused.startswith("no route"):
        detail += (
            " A route to another node's pods is set by Cilium (auto-direct-node-routes) or by the "
            "network."
        )
    elif answer is not None and decision.differs:
        detail += f" The tables have a route: {decision.differs}."
    walk.drop(
        *here.on_node(HopKind.ROUTE),
        f"{decision.refused} on {here.node}",
        State.DERIVED,
        here.packet,
        proof + evidence or cite.whole(node[q.ROUTES].record),
        title=f"node {here.node}: {decision.refused}",
        detail=detail,
        cause=f"{decision.refused} on {here.node}",
        fix=delete_what_refuses(decision, f"on {here.node}", version)
        or _give_route(decision, here.node, command),
    )


def _give_route(decision: Decision, node: str, command: str) -> Fix:
    """Return what to do where no route leads on, or where the kernel sees it so."""
    if decision.differs:
        return Fix(f"See on {node} which rule or table the kernel takes.", command)
    return Fix(
        f"Give {node} a route there: to another node's pods Cilium sets one "
        "(auto-direct-node-routes), or the network's own routing does.",
        command,
    )
