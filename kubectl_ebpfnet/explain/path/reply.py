"""The way back: the answer to a packet that arrived is walked through the same stages.

It begins at the far end, with the packet as it arrived there, reversed: in the far pod, in the far
node's own namespace, or, for what leaves the cluster, where it comes back to the node that the
packet left by. Cilium's conntrack and the node's know its connection: no policy is asked, nothing
is load-balanced, and translations are undone (stages/reply_nat.py).

A record that nobody has of the far end is presumed to be as usual, and named: captures may lack it.
What was read and cannot be decided counts as it does on the packet's way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubectl_ebpfnet.explain.flows.between import nat_entry_of
from kubectl_ebpfnet.explain.path import agent_behind
from kubectl_ebpfnet.explain.path.endings import Arrived, Destination, Dropped, Stopped
from kubectl_ebpfnet.explain.path.stages import reply_nat
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_at_cgroups
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_cgroups import EGRESS
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.model.path import (
    Decides,
    Direction,
    Fix,
    HopKind,
    HopPlace,
    Packet,
    Return,
    Severity,
    State,
    Target,
    WayBack,
)
from kubectl_ebpfnet.model.shell import word

Run = Callable[[PathBuilder, PacketState], None]
"""Runs a walk from a place."""
THERE = "the same nodes and devices"
"""What is said of an answer that comes back the way that its packet went."""


def walk_back(forth: PathBuilder, run: Run) -> None:
    """Walk the answer to a packet that arrived; `forth.back` is its walk then.

    Args:
        forth: the packet's walk, which has ended; takes what the answer's walk found.
        run: runs a walk.
    """
    here, end = forth.last, forth.end
    if here is None or not isinstance(end, Arrived):
        return
    packet = Packet(here.packet.flow.reversed())
    back = PathBuilder(forth.cluster, forth.ends, forth=forth, far=_far_end(forth, here, end))
    forth.back = back
    if here.stage in (Stage.SOCKET, Stage.POD):  # it stays on lo in the pod, as its answer does
        back.arrived(Destination.POD, end.text)
        return
    elsewhere = _goes_elsewhere(forth, here, end, packet)
    if elsewhere:
        back.unknown(elsewhere)
        return
    start = _start(back, here, end, packet)
    if back.sender.kind == "node" or (back.sender.kind == "pod" and back.sender.name):
        show_at_cgroups(back, start, back.sender.namespace, back.sender.name, {EGRESS})
    run(back, start)
    _check_end(back)
    agent_behind.name_cause(back)
    for each in back.contradictions:
        forth.lets_pass_though(f"way back: {each.text}", each.evidence)
    for finding in back.findings:
        if finding.severity is not Severity.INFO:
            forth.findings.append(replace(finding, title=f"way back: {finding.title}"))
    for doubt in back.undecided:
        forth.undecided.append(replace(doubt, direction=Direction.ANSWER))
    forth.presumed.take(back.presumed)
    forth.unread += back.unread
    forth.wanted += back.wanted
    forth.outdated = forth.outdated or back.outdated


def lost(walk: PathBuilder) -> Dropped | None:
    """Return how the tables lose the answer to a packet that arrives; None where they do not."""
    if walk.back is None or not isinstance(walk.back.end, Dropped):
        return None
    return walk.back.end


def way_back(forth: PathBuilder) -> WayBack | None:
    """Return what is told of the answer, None where the packet does not arrive."""
    back = forth.back
    if back is None or not isinstance(forth.end, Arrived):
        return None
    way = _difference(forth, back)
    state, reason = _state(forth, back)
    shown = THERE if isinstance(back.end, Arrived) and state is Return.RETURNS else ""
    return WayBack(state, reason, bool(way), way or shown, tuple(back.hops))


def _state(forth: PathBuilder, back: PathBuilder) -> tuple[Return, str]:
    end = back.end
    elsewhere = next((u for u in forth.undecided if u.decides is Decides.WAY), None)
    if isinstance(end, Dropped) and (elsewhere is None or end.drop.how == "seen"):
        return Return.LOST, end.reason
    open_hops = (u for u in forth.undecided if u.direction is Direction.ANSWER)
    first = next(open_hops, elsewhere if isinstance(end, Dropped) else None)
    if back.answered_now() and isinstance(end, Stopped):
        return Return.RETURNS, f"which way it came is not known: {end.reason}"
    if back.answered_now():
        return Return.RETURNS, ""
    if first is not None:
        return Return.UNKNOWN, first.reason
    if isinstance(end, Stopped):
        return Return.UNKNOWN, end.reason
    return Return.RETURNS, back.presumed.sentence()


def _far_end(forth: PathBuilder, here: PacketState, end: Arrived) -> Target:
    address = here.packet.flow.destination
    if end.destination is Destination.OUTSIDE:
        return Target(str(address), "address", address=address)
    pod = forth.cluster.pod_with(address)
    if end.destination is Destination.POD and pod is not None:
        text = f"pod/{pod.name}"
        return Target(text, "pod", pod.namespace, pod.name, address, node=here.node)
    kind = "pod" if end.destination is Destination.POD else "node"
    return Target(str(address), kind, address=address, node=here.node)


def _goes_elsewhere(forth: PathBuilder, here: PacketState, end: Arrived, packet: Packet) -> str:
    """Return why it is not known to which node an answer from outside comes, "" where a node has
    the address that the packet left with."""
    node, target = forth.cluster.node(here.node), packet.flow.destination
    if here.packet.outer is not None:
        return "the other end of the tunnel, of which nothing is known, sends the answer"
    if end.destination is not Destination.OUTSIDE or not node[q.ADDRESSES].known:
        return ""
    if any(hop.kind is HopKind.NAT and hop.state is State.UNKNOWN for hop in forth.hops):
        return ""  # it left with an address of the node's, and nothing tells which
    for route in node[q.ROUTES].facts:  # a table of its own leads what a proxy takes to lo
        usual = route.table in ("local", "main")
        if usual and route.type == "local" and target in route.destination:
            return ""
    if target in node.own_addresses or forth.cluster.owner_of(target):
        return ""
    return (
        f"answers to {target}, which is none of {here.node}'s addresses, come back only if the "
        "network leads them there"
    )


def _start(back: PathBuilder, here: PacketState, end: Arrived, packet: Packet) -> PacketState:
    """Return the answer at the place where it begins."""
    node = here.node
    if end.destination is Destination.OUTSIDE:
        target = packet.flow.destination
        own = target in back.cluster.node(node).own_addresses
        comes_to = node if own else back.cluster.owner_of(target)
        return PacketState(Stage.ARRIVAL, packet, comes_to or node)
    if end.destination is Destination.NODE:
        return PacketState(Stage.HOST, packet, node)
    far = back.sender
    netns = back.cluster.pod_netns(far.namespace, far.name)
    record = netns.routes(packet.flow.destination.version).record
    endpoint = back.endpoint
    start = PacketState(
        Stage.POD, packet, node, here.device, identity=endpoint.identity if endpoint else 0
    )
    if far.name and record is not None and record.ok:
        return start
    name = f"pod {far.namespace}/{far.name}" if far.name else f"the pod with {far.address}"
    back.presumed.add(f"routes and rules of {name} (`ip route`, `ip rule` in it)")
    return start.to(Stage.VETH, in_device=here.device)


def _check_end(back: PathBuilder) -> None:
    """Stop where the answer is not what the sender's socket waits for: a translation that the walk
    did not undo."""
    here, forth = back.last, back.forth
    if here is None or forth is None or not isinstance(back.end, Arrived):
        return
    waits_for = reply_nat.expected(forth)
    flow = back.hops[-1].packet.flow
    by_itself = reply_nat.answers_by_itself(forth)
    same_end = (flow.destination, flow.protocol) == (waits_for.destination, waits_for.protocol)
    if flow.matches(waits_for) or (by_itself and same_end):
        return
    if back.end.destination is Destination.NODE and _at_another_node(back, forth, here):
        return
    if _past_the_translator(back, forth, here):
        return
    back.unknown(f"the answer arrives as {flow}, and the sender waits for {waits_for}")


def _past_the_translator(back: PathBuilder, forth: PathBuilder, here: PacketState) -> bool:
    """Drop an answer of TCP that comes to its sender, but not by the node whose netfilter gave the
    packet its destination, or there by Cilium's programs alone, past netfilter: the sender knows no
    connection with that address, and answers with a RST. One of UDP is open: a socket that is not
    connected takes it. Return whether it is such an answer."""
    visited = {hop.node for hop in back.hops}
    seen = all(hop.state is not State.UNKNOWN for hop in back.hops)
    if here.skips_netfilter and seen:
        visited.discard(here.node)
    missed = [
        each
        for each in reply_nat.translations(forth)
        if (each.hop.place, each.hop.kind) == (HopPlace.NODE, HopKind.LOAD_BALANCING)
        and each.hop.node not in visited
    ]
    undecided = any(u.decides is Decides.WAY for u in (*forth.undecided, *back.undecided))
    flow = here.packet.flow
    comes = flow.destination == reply_nat.expected(forth).destination
    if not missed or not comes or undecided or flow.protocol not in (TCP, UDP):
        return False
    hop = missed[0].hop
    last = back.hops[-1]
    by = f"netfilter of {hop.node}" if hop.node == here.node else hop.node
    if flow.protocol == UDP:
        back.doubt(
            f"the answer comes from {flow.source}, and past {by}, which translated the packet: a "
            "connected socket, as a resolver's, does not take it",
            Decides.DROP, _let_it_come_back(forth, hop.node),
        )  # fmt: skip
        return True
    back.drop(
        last.place, last.where, last.node, HopKind.DELIVERY,
        f"the answer comes from {flow.source}, and past {by}, which translated the packet: "
        "the sender knows no such connection",
        State.DERIVED, here.packet, hop.evidence,
        title=f"the answer does not come back by {by}, which translated the packet",
        detail=f"{hop.summary}. {hop.node} gave the packet no source of its own, so the answer "
        "goes straight to the sender, from an address that it did not ask.",
        fix=_let_it_come_back(forth, hop.node),
    )  # fmt: skip
    return True


def _let_it_come_back(forth: PathBuilder, node: str) -> Fix:
    service = forth.ends.service
    owner = service.owner if service is not None else None
    if owner is None or owner.external_traffic_policy != "Local" or not owner.cluster_addresses:
        return Fix(
            f"Let {node} masquerade what it translates: kube-proxy's rules of POSTROUTING are "
            "missing there, or another rule takes the packet first.",
            "iptables-save -c -t nat",
        )
    return Fix(
        f"Ask the ClusterIP {owner.cluster_addresses[0]} from inside of the cluster, or set "
        "externalTrafficPolicy: Cluster, with which the node masquerades.",
        f"kubectl get service -n {word(owner.namespace)} {word(owner.name)}",
    )


def _at_another_node(back: PathBuilder, forth: PathBuilder, here: PacketState) -> bool:
    """Drop an answer from outside that comes to another node than that which translated the packet;
    return whether it is one."""
    left = forth.last
    if left is None or here.node == left.node or back.sender.kind != "address":
        return False
    flow = here.packet.flow
    table = back.cluster.node(here.node).table_state(q.NAT)
    if not table.known or (table.record is not None and table.record.about):
        return False
    if nat_entry_of(back.cluster.node(here.node), forth.ends.flow) is not None:
        return False
    back.drop(
        *here.on_node(HopKind.NAT),
        f"{here.node} has {flow.destination}, and did not translate the packet: the answer ends "
        f"there, and does not come back to {left.node}",
        State.DERIVED,
        here.packet,
        cite.whole(table.record),
        title=f"the packet leaves {left.node} with {flow.destination}, an address of {here.node}",
        detail=f"Give {left.node} the address, and take it from {here.node}, or choose another one "
        "for the packet to leave with.",
    )
    return True


def _difference(forth: PathBuilder, back: PathBuilder) -> str:
    """Return by which other nodes or devices the answer comes, "" where it comes as the packet
    went, as far as it comes."""
    went, comes = list(reversed(forth.links)), back.links
    if not isinstance(back.end, Arrived):
        went = went[: len(comes)]
    pairs = list(zip(went, comes, strict=False))
    if len(went) == len(comes) and all(one == other for (one, _), (other, _) in pairs):
        known = [(a, b) for (_, a), (_, b) in pairs if a and b]
        other = "" if all(a == b for a, b in known) else "other devices"
    else:
        other = "another way"
    words = ", ".join(f"{device or 'a device'} of {node}" for node, device in comes)
    return other and f"{other} than the packet: by {words or 'its own node alone'}"
