"""The next hop's MAC: the node's neighbour entry, against the devices of the node that is meant.

A host answers ARP for its addresses at each of its devices (Linux net/ipv4/arp.c, arp_process, with
arp_ignore 0), so the MAC of any device of the owner is right. Another one is right only where
something between the nodes answers in the owner's name: a router with proxy ARP, a cloud's network.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.neighbours import neighbour_of, unresolved
from kubectl_ebpfnet.explain.path.stages.link_state import link_evidence
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import Neighbour
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Outcome, Severity, State
from kubectl_ebpfnet.model.shell import word

_NOT_ON_A_LINK = ("lo", "lxc", "cilium_")
"""How the names of devices begin that no other node can send a frame to."""


def resolve(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Add the neighbour entry of the next hop; return whether the packet can be sent to it.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
    """
    answer = node[q.NEIGHBOURS]
    flow = here.packet.outer or here.packet.flow
    target: Address = here.next_hop or flow.destination
    if not answer.known or not _has_neighbours(node, here.device):
        return True
    if target.version == 6 and answer.record is not None and _lists_ipv4_alone(answer.record):
        return True
    neighbour = neighbour_of(answer.facts, here.device, target)
    if neighbour is None:
        _no_entry(walk, here, target, cite.whole(answer.record))
        return True
    evidence = cite.of(answer.record, neighbour.span)
    state = "/".join(neighbour.states)
    if unresolved(neighbour):
        _drop_unresolved(walk, here, target, state, evidence)
        return False
    summary = f"next hop {target} is at {neighbour.mac} on {here.device} ({state})"
    other = _other_mac(walk, here, node, neighbour)
    if other is not None:
        return _weigh(walk, here, neighbour, other, summary, evidence)
    walk.hop(
        *here.on_node(HopKind.NEIGHBOUR), summary, State.OBSERVED, here.packet, evidence,
        short=f"{target} at {neighbour.mac}, {state}",
    )  # fmt: skip
    return True


def _drop_unresolved(
    walk: PathBuilder,
    here: PacketState,
    target: Address,
    state: str,
    evidence: tuple[Evidence, ...],
) -> None:
    """Drop a packet whose next hop does not tell its MAC. An address of a Service that the node's
    rules leave as it is seldom has one: then what has them do so is the cause."""
    service, why = walk.ends.service, walk.left_alone
    if service is None or target != service.address or walk.forth is not None:
        why = None
    detail = (
        f"The packet keeps the address of {service.owner_title}, which nobody on the link answers "
        f"ARP/ND for: {why.cause}."
        if service is not None and why is not None
        else "Nobody on the link answers ARP/ND for the next hop: it is down, or not on this "
        "network."
    )
    walk.drop(
        *here.on_node(HopKind.NEIGHBOUR),
        f"next hop {target} on {here.device} is {state}",
        State.OBSERVED, here.packet, evidence,
        title=f"neighbour {target} on {here.device} of {here.node} is {state}",
        detail=detail,
        cause=why.cause if why is not None else "",
        fix=why.fix if why is not None else _ask_for(here, target, detail),
        object=why.object if why is not None else "",
    )  # fmt: skip


def is_the_pods(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether the MAC by which the node's stack sends to a pod of its own is the pod's, and
    drop the packet where somebody wrote another one.

    Args:
        walk: takes the drop.
        here: the packet at the device to the pod.
        node: the pod's node.
    """
    target = here.packet.flow.destination
    endpoint = node.local_endpoint(target)
    neighbour = neighbour_of(node[q.NEIGHBOURS].facts, here.device, target)
    if here.skips_netfilter or endpoint is None or neighbour is None:
        return True
    if not endpoint.mac or "PERMANENT" not in neighbour.states or neighbour.mac == endpoint.mac:
        return True
    wrong = f"the pod with {target} is at {endpoint.mac}, not at {neighbour.mac}"
    _drop_wrong(walk, here, neighbour, wrong, cite.of(node[q.NEIGHBOURS].record, neighbour.span))
    return False


def _drop_wrong(
    walk: PathBuilder,
    here: PacketState,
    neighbour: Neighbour,
    wrong: str,
    proof: tuple[Evidence, ...],
) -> None:
    fix = _delete(here, neighbour)
    on = f"dev {here.device} of node {here.node}"
    walk.drop(
        *here.on_node(HopKind.NEIGHBOUR),
        f"sent to {neighbour.mac} on {here.device} ({'/'.join(neighbour.states)}): {wrong}",
        State.DERIVED, here.packet, proof,
        title=f"{here.node} sends to a wrong MAC: {wrong}",
        detail=f"`{fix.command}` on {here.node}: the kernel asks for the MAC itself.",
        fix=fix, object=f"neighbour {neighbour.address} {on}",
    )  # fmt: skip


def _delete(here: PacketState, neighbour: Neighbour) -> Fix:
    return Fix(
        f"Delete the entry on {here.node}: the kernel asks for the MAC itself.",
        f"ip neigh del {neighbour.address} dev {word(here.device)}",
    )


def _no_entry(
    walk: PathBuilder, here: PacketState, target: Address, evidence: tuple[Evidence, ...]
) -> None:
    """Say that the next hop's MAC has to be asked for, which may get no answer."""
    silent = _silent(walk)
    walk.hop(
        *here.on_node(HopKind.NEIGHBOUR),
        f"no entry for next hop {target} on {here.device} yet: the node asks for its MAC",
        State.UNKNOWN if silent else State.DERIVED,
        here.packet,
        evidence,
        reason=f"whether anybody has {target} on {here.device} is not known" if silent else "",
        decides=Decides.DROP,
        fix=_ask_for(here, target),
    )


def _ask_for(here: PacketState, target: Address, why: str = "") -> Fix:
    """Return how to ask for a MAC by hand; `why` are sentences that stand before it."""
    device = word(here.device)
    ask = f"ndisc6 {target} {device}" if ":" in str(target) else f"arping -I {device} {target}"
    return Fix(f"{why} Ask for it on {here.node}.".strip(), ask)


def _silent(walk: PathBuilder) -> bool:
    attempt = walk.attempt
    return attempt is not None and attempt.now and attempt.outcome is Outcome.UNANSWERED


def _has_neighbours(node: NodeView, device: str) -> bool:
    """Tell whether packets at a device need a MAC: tunnels of IP in IP and WireGuard have none."""
    link = node.link(device)
    return link is None or (link.arp and bool(link.mac))


def _lists_ipv4_alone(record: Record) -> bool:
    """Tell whether a record of neighbours has those of ARP alone (/proc/net/arp, arp)."""
    return "arp" in record.argv[-1] or record.argv[0] == "arp"


@dataclass(frozen=True, slots=True)
class _OtherMac:
    """A next hop's MAC that none of the owner's devices has.

    Attributes:
        owner: the node that has the next hop's address.
        expected: its device with the address, and that device's MAC.
        holder: another node that has the MAC, this one included; "" for none that was read.
        shares: other next hops of this node with the same MAC, as a router's or a cloud's are.
        direct: the owner sees this node's own MAC: nothing between them translates.
        evidence: the owner's device, and its entry for this node.
    """

    owner: str
    expected: tuple[str, str]
    holder: str
    shares: tuple[Address, ...]
    direct: bool
    evidence: tuple[Evidence, ...]


def _other_mac(
    walk: PathBuilder, here: PacketState, node: NodeView, neighbour: Neighbour
) -> _OtherMac | None:
    """Compare a MAC with the owner's devices; None where it is right, or they were not read."""
    owner_name = walk.cluster.owner_of(neighbour.address)
    if not owner_name or owner_name == here.node:
        return None
    owner = walk.cluster.node(owner_name)
    devices = [a.device for a in owner[q.ADDRESSES].facts if a.address == neighbour.address]
    links = (owner.link(device) for device in devices if device != "lo")
    expected = next((link for link in links if link is not None and link.mac), None)
    if expected is None or neighbour.mac in (expected.mac, *_macs(owner)):
        return None
    holders = (name for name in walk.cluster.recorded_nodes if name != owner_name)
    holder = next((n for n in holders if neighbour.mac in _macs(walk.cluster.node(n))), "")
    shares = tuple(
        each.address
        for each in node[q.NEIGHBOURS].facts
        if each.mac == neighbour.mac and each.device == neighbour.device
        if each.address != neighbour.address
    )
    mine = node.link(here.device)
    seen = [
        each
        for each in owner[q.NEIGHBOURS].facts
        if mine and each.mac == mine.mac and walk.cluster.owner_of(each.address) == here.node
    ]
    return _OtherMac(
        owner_name,
        (expected.name, expected.mac),
        holder,
        shares,
        bool(seen),
        link_evidence(owner, expected.name)
        + cite.of(owner[q.NEIGHBOURS].record, *(each.span for each in seen[:1])),
    )


def _macs(node: NodeView) -> set[str]:
    """Return the MACs by which a node can be sent a frame."""
    links = node[q.LINKS].facts
    return {link.mac for link in links if not link.name.startswith(_NOT_ON_A_LINK)} - {""}


def _weigh(
    walk: PathBuilder,
    here: PacketState,
    neighbour: Neighbour,
    other: _OtherMac,
    summary: str,
    evidence: tuple[Evidence, ...],
) -> bool:
    """Add the hop of a MAC that the owner does not have; return whether the packet goes on."""
    target, (device, right) = neighbour.address, other.expected
    wrong = f"{device} of {other.owner}, which has {target}, is at {right}, not at {neighbour.mac}"
    by_hand = "PERMANENT" in neighbour.states
    proof = evidence + other.evidence
    fix = _delete(here, neighbour)
    nobodys = by_hand and other.direct and not other.holder and not other.shares
    if nobodys or other.holder == here.node:
        whose = f"that is {here.node}'s own" if other.holder else "no device that was read has it"
        _drop_wrong(walk, here, neighbour, f"{wrong}: {whose}", proof)
        return False
    if not by_hand and not _silent(walk) and not other.holder and other.shares:
        # As in clouds, where one router answers for everybody.
        walk.hop(*here.on_node(HopKind.NEIGHBOUR), summary, State.OBSERVED, here.packet, evidence)
        return True
    what = _what_passes_it_on(neighbour, other)
    decides = by_hand or bool(other.holder) or _silent(walk)
    unknown = decides and not walk.answered_now()
    walk.hop(
        *here.on_node(HopKind.NEIGHBOUR), summary, State.UNKNOWN if unknown else State.OBSERVED,
        here.packet, proof, reason=f"{wrong}; {what}" if unknown else "", decides=Decides.DROP,
        fix=fix,
    )  # fmt: skip
    walk.finding(
        Severity.WARNING if decides else Severity.INFO,
        f"{here.node} sends to a MAC that {other.owner} does not have: {wrong}",
        f"It arrives if {what.removeprefix('whether ').removesuffix(' is not known')}. If nothing "
        f"is meant to stand between the nodes: `{fix.command}` on {here.node}.",
        proof,
    )
    return True


def _what_passes_it_on(neighbour: Neighbour, other: _OtherMac) -> str:
    """Return what would have to bring the packet to its owner."""
    if other.holder:
        return f"whether {other.holder}, which has that MAC, forwards it is not known"
    if other.shares:
        return f"whether {other.shares[0]}, which has that MAC, forwards it is not known"
    return f"whether something answers ARP/ND for {neighbour.address} in its place is not known"
