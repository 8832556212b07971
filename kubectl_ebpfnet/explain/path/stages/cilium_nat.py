"""Source NAT by Cilium as a packet leaves a node: BPF masquerading.

Source: Cilium bpf/lib/nat.h (snat_v4_needs_masquerade), in its order. It is done by cil_to_netdev,
so at no device that the program is not attached to.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from kubectl_ebpfnet.explain.flows.notes import no_snat_map
from kubectl_ebpfnet.explain.path import masquerade_address, snat_ports
from kubectl_ebpfnet.explain.path.stages import endpoint_rows
from kubectl_ebpfnet.explain.path.stages.masquerade import in_native_cidr, report_missing
from kubectl_ebpfnet.explain.path.stages.network_program import to_netdev_at
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import NatEntry
from kubectl_ebpfnet.model.net import Address, endpoint_text
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, HopPlace, Severity, State

_SEARCHED = 2000
"""NAT lines that are searched for the address that a device masquerades with."""


def by_cilium(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Apply cil_to_netdev's SNAT: add the hop and give the packet its new source; None where it
    has no port for it.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
    """
    tracked = walk.tracked
    flow = here.packet.flow
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.NAT)
    entry = tracked.cilium_nat if tracked is not None and tracked.node == here.node else None
    if entry is not None and entry.flow == flow and not walk.outdated:
        spared = "" if walk.answered_now() else _spared(walk, node, flow.destination)
        if not spared or entry.translated().source == flow.source:
            return _as_seen(walk, here, node, entry)
        _outlived(walk, entry, spared)
    mode = node.config.masquerading_of(flow.source.version)
    leaves = not walk.cluster.in_cluster(flow.destination)
    if mode == "disabled" and leaves and here.skips_netfilter:  # else netfilter's stage says it
        evidence = cite.of(node.config_record, node.config.masquerading)
        report_missing(walk, here, node, evidence)
    if mode != "bpf":
        return here
    if _is_exempt(walk, here, node):
        return here
    if no_snat_map(node, flow.source.version):
        evidence = cite.whole(node.table_state(q.NAT).record)
        report_missing(walk, here, node, evidence, "the node has no SNAT map")
        return here
    program = to_netdev_at(node, here.device)
    if program.attached is None:
        walk.hop(
            *where, "masqueraded by Cilium where its program is at this device", State.UNKNOWN,
            here.packet, program.evidence, decides=Decides.DROP,
            reason=f"whether cil_to_netdev is at {here.device} is not known: {program.missing}",
        )  # fmt: skip
    elif not program.attached:
        devices = ", ".join(node.config.devices) or "not known"
        report_missing(
            walk, here, node, program.evidence,
            f"its program cil_to_netdev is not at {here.device} (Cilium's devices are {devices})",
        )  # fmt: skip
        return here
    return _masqueraded(walk, here, node)


def _is_exempt(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether Cilium leaves the source as it is, or may, and add the hop that says why."""
    where = here.in_cilium(HopKind.NAT)
    exemption = _exemption(walk, here, node)
    if exemption:
        if not walk.cluster.in_cluster(here.packet.flow.destination):
            evidence = cite.of(node.config_record, node.config.masquerading)
            walk.hop(*where, f"not masqueraded: {exemption}", State.DERIVED, here.packet, evidence)
            if not _spared(walk, node, here.packet.flow.destination):
                endpoint_rows.lacks_sender(walk, here, node)
        return True
    spares = node[q.IP_MASQ]
    if node.config.ip_masq_agent and not spares.known:
        walk.hop(
            *where, "masqueraded by Cilium, unless the ip-masq-agent spares the destination",
            State.UNKNOWN, here.packet, cite.whole(spares.record),
            reason=f"the prefixes that the ip-masq-agent spares could not be read: "
            f"{spares.missing}",
        )  # fmt: skip
        return True
    return False


def _as_seen(walk: PathBuilder, here: PacketState, node: NodeView, entry: NatEntry) -> PacketState:
    proof = _nat_evidence(walk)
    packet = replace(here.packet, flow=entry.translated())
    end = endpoint_text(entry.address, entry.port)
    same = entry.translated().source == here.packet.flow.source
    text = (
        f"Cilium's NAT keeps the source {end}"
        if same
        else f"Cilium masquerades the source to {end}, as its NAT map shows"
    )
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.NAT)
    short = "by Cilium: the source stays" if same else "by Cilium"
    walk.hop(*where, text, State.OBSERVED, packet, proof, short=short)
    _check_address(walk, here, node, entry.address, proof)
    return here.to(here.stage, packet=packet)


def _masqueraded(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    flow = here.packet.flow
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.NAT)
    addresses, how, proof = _candidates(walk, node, here.device, flow.source.version)
    evidence = cite.of(node.config_record, node.config.masquerading) + proof
    if len(addresses) != 1:
        listed = ", ".join(map(str, addresses))
        walk.hop(
            *where,
            f"Cilium masquerades the source to one of {listed}"
            if listed
            else "masqueraded by Cilium",
            State.UNKNOWN,
            here.packet,
            evidence,
            reason=f"one of {listed}: nothing recorded tells which of its addresses Cilium takes"
            if listed
            else f"the address of {here.device} is not known",
        )
        return here
    if not snat_ports.by_cilium(walk, here, node, addresses[0], where):
        return None
    packet = replace(here.packet, flow=flow.with_source(addresses[0], None))
    walk.hop(
        *where,
        f"Cilium masquerades the source to {addresses[0]}, the address of {here.device}{how}",
        State.DERIVED, packet, evidence, short=f"by Cilium, to the address of {here.device}",
    )  # fmt: skip
    _not_in_nat_map(walk, here, node)
    return here.to(here.stage, packet=packet)


def _not_in_nat_map(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    """Report a flow of this packet that Cilium's conntrack has and its NAT map lacks."""
    tracked = walk.tracked
    entry = tracked.cilium_ct if tracked is not None and tracked.node == here.node else None
    if tracked is None or entry is None or entry.flow != here.packet.flow:
        return
    table = node.table_state(q.NAT)
    if not table.known or (
        table.record is not None
        # Of a large map, entries are looked up for what conntrack's answer shows, as it does this.
        and not (table.record.about or table.record.has_all(entry.flow))
    ):
        return
    if "ProxyRedirect" in entry.flags:
        return
    walk.finding(
        Severity.WARNING,
        "Cilium's conntrack has the flow, its NAT map has not",
        (
            "The NAT entry was evicted (a full map) or collected before the conntrack entry; "
            f"replies to the old port are lost. `{node.cilium('bpf nat list')}` and the map's size "
            "tell."
        )
        if entry.rx_flags_seen
        else f"It left its pod and was not sent out by {here.device}: the next hop is not "
        "resolved, or something on the node loses it before.",
        tracked.evidence[:1],
    )


def _candidates(
    walk: PathBuilder, node: NodeView, device: str, version: int
) -> tuple[tuple[Address, ...], str, tuple[Evidence, ...]]:
    """Return the addresses that Cilium may masquerade with at a device, how one of several is known
    to be the one, and the proof. The address of an egress gateway may be at the device as well."""
    known = walk.cluster.kube_node(node.name)
    addresses = known.internal_addresses if known is not None else None
    found = masquerade_address.of_cilium(node, device, version, addresses)
    several = node.addresses_of(device, version)
    if len(several) < 2:
        return found, "", ()
    if len(found) == 1:
        spans = [fact.span for fact in node[q.ADDRESSES].facts if fact.device == device]
        proof = cite.of(node[q.ADDRESSES].record, *spans)
        return found, f", of its {len(several)} the one that every version takes", proof
    egress = node[q.EGRESS_GATEWAY]
    if node.config.egress_gateway and not egress.known:
        return found, "", ()
    if found and not node.want_all(q.EGRESS_GATEWAY, found[0]):
        return found, "", ()
    others = {row.egress_address for row in egress.facts}
    for line in islice(node.lines(q.NAT, [str(address) for address in found]), _SEARCHED):
        entry = line.fact
        if entry.direction == "OUT" and entry.address in found and entry.address not in others:
            return (entry.address,), ", as its NAT map shows for other flows", line.evidence
    return found, "", ()


def _nat_evidence(walk: PathBuilder) -> tuple[Evidence, ...]:
    """Return the NAT entry's line, which follows the conntrack lines in TrackedFlow.evidence."""
    tracked = walk.tracked
    assert tracked is not None
    before = sum(part is not None for part in (tracked.cilium_ct, tracked.service_ct))
    return tracked.evidence[before : before + 1]


def _exemption(walk: PathBuilder, here: PacketState, node: NodeView) -> str:
    """Return why Cilium does not masquerade, in the datapath's own order; "" when it does."""
    flow = here.packet.flow
    if walk.ends.host_network or flow.source in walk.cluster.node_addresses:
        return "the source is the node itself"
    if walk.from_outside and flow.source == walk.ends.flow.source:
        return "the source is a client outside of the cluster"
    if spared := _spared(walk, node, flow.destination):
        return spared
    if _no_endpoint(node, flow.source):
        return f"{flow.source} is no endpoint of this node"
    return ""


def _spared(walk: PathBuilder, node: NodeView, destination: Address) -> str:
    """Return why no pod is masqueraded to a destination; "" when pods are."""
    if native := in_native_cidr(node, destination):
        return native
    for prefix in node[q.IP_MASQ].facts:
        if destination in prefix:
            return f"ip-masq-agent spares {prefix}"
    if destination not in walk.cluster.node_addresses or node.config.remote_node_masquerade:
        return ""
    if node.config.routing_mode == "native":
        return f"{destination} is a node of the cluster"
    entry = node.ipcache_of(destination)
    if entry is not None and "skiptunnel" in entry.flags:
        return f"{destination} is a node of the cluster that is reached without the tunnel"
    return ""


def _outlived(walk: PathBuilder, entry: NatEntry, spared: str) -> None:
    """Report an entry of the NAT map that is older than what spares its destination: Cilium looks
    the map up only for what it masquerades."""
    walk.finding(
        Severity.WARNING,
        f"Cilium's NAT map has the flow as {endpoint_text(entry.address, entry.port)}, though it "
        "is masqueraded no more",
        f"{spared}: the entry is older than that. Packets that are sent now keep the pod's "
        "address, so a connection that began before is broken.",
        _nat_evidence(walk),
    )


def _no_endpoint(node: NodeView, address: Address) -> bool:
    known = node[q.ENDPOINT_MAP].known or node[q.ENDPOINTS].known
    return known and node.local_endpoint(address) is None


def _check_address(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    address: Address,
    proof: tuple[Evidence, ...],
) -> None:
    own = node.addresses_of(here.device, address.version)
    if not own or address in own or address in node.own_addresses:
        return
    gateway = node[q.EGRESS_GATEWAY]
    if any(row.egress_address == address for row in gateway.facts):
        return
    if node.config.egress_gateway and not gateway.known:
        return  # it may be the address of one
    if not node.want_all(q.EGRESS_GATEWAY, address):
        return
    walk.finding(
        Severity.WARNING,
        f"Cilium's NAT maps the flow to {address}, which {here.node} does not have",
        f"{here.device} has {', '.join(map(str, own))}. The node's address changed since the "
        "entry was made. Older versions of Cilium keep it, and replies go nowhere until it is "
        "gone; newer ones replace it with the flow's next packet.",
        proof,
    )
