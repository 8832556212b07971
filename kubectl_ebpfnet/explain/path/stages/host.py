"""The node's own stack: netfilter, rules and routes, and delivery to the node itself.

The order is the kernel's: raw, mangle and nat PREROUTING, the routing decision, filter FORWARD (or
INPUT), nat POSTROUTING (Linux net/ipv4/ip_input.c, ip_forward.c, ip_output.c). Traffic control at
the egress device comes after that.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.path.stages import loadbalancing
from kubectl_ebpfnet.explain.path.stages.conntrack_table import table_is_full
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.state import Destination, PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import NetfilterRule
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, HopPlace, State

IDENTITY_MARK = 0x0F00
"""MARK_MAGIC_IDENTITY: what cil_from_container puts on packets for the stack (bpf/lib/common.h)."""
MASQUERADE_MARK = 0x4000
"""Bit 14, kube-proxy's --iptables-masquerade-bit by default: KUBE-POSTROUTING masquerades it."""


def forward(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Pass the packet through the node's stack."""
    node = walk.cluster.node(here.node)
    if table_is_full(walk, here, node):
        return None
    translated = _destination_nat(walk, here, node)
    if translated is None:
        return None
    here = translated
    flow = here.packet.flow
    mark = _mark(here) or 0
    decision = route_of(walk, here, node, flow.source, flow.destination, mark=mark)
    if decision is None or decision.route is None:
        return None
    route_hop(walk, here, node, decision, (HopPlace.NODE, here.node))
    if decision.local or flow.destination in node.own_addresses:
        return here.to(Stage.NODE_LOCAL)
    device = decision.route.device
    if not _filter(walk, here, node, "FORWARD" if here.in_device else "OUTPUT", device):
        return None
    return here.to(Stage.DEVICE, device=device, next_hop=decision.route.gateway)


def _mark(here: PacketState) -> int | None:
    mark: int | None = None
    if not here.in_device:
        mark = 0
    elif here.identity:
        low, high = here.identity & 0xFFFF, here.identity >> 16 & 0xFF
        mark = low << 16 | IDENTITY_MARK | high
    return (mark or 0) | MASQUERADE_MARK if here.to_masquerade else mark


def _destination_nat(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    service = walk.ends.service
    if service is None or here.packet.flow.destination != service.address:
        return here
    tracked = walk.tracked_at(here)
    seen = tracked.netfilter if tracked else None
    by_rules = _service_rules(walk, here, node)
    if (seen is None or not seen.destination_nat) and not by_rules:
        ruleset = node.ruleset(here.packet.flow.destination.version)
        if ruleset.known:
            return here
        walk.hop(
            *here.on_node(HopKind.LOAD_BALANCING),
            f"{service.title}", State.UNKNOWN, here.packet, service.evidence,
            reason=f"netfilter's rules could not be read: {ruleset.missing}",
        )  # fmt: skip
        walk.unknown("which backend netfilter would choose is not known")
        return None
    record = node.ruleset(here.packet.flow.destination.version).record
    proof = cite.of(record, *(rule.span for rule in by_rules)) if by_rules else ()
    packet = loadbalancing.rewrite(
        walk,
        here.packet,
        replace(service, evidence=service.evidence + proof),
        here.on_node(HopKind.LOAD_BALANCING),
        "by netfilter's rules of kube-proxy",
        tracked,
    )
    if packet is None:
        return None
    # KUBE-EXT-… (since 1.24) marks what comes from outside of the cluster's policy, too.
    seen_by_rules = context(walk, here, node, "")
    marked = any(
        rule.jump.startswith(("KUBE-MARK-MASQ", "KUBE-EXT-"))
        and netfilter.matches(rule, seen_by_rules)
        for rule in by_rules
    )
    return here.to(here.stage, packet=packet, to_masquerade=marked)


def _service_rules(walk: PathBuilder, here: PacketState, node: NodeView) -> list[NetfilterRule]:
    """Return kube-proxy's rules for the packet's destination; of node ports on that node only."""
    destination = here.packet.flow.destination
    answer = node.ruleset(destination.version)
    if not answer.facts:
        return []
    chains = answer.facts[0]
    rules = [
        rule
        for rule in chains.chain("nat", "KUBE-SERVICES")
        if rule.destination is not None
        and rule.destination.num_addresses == 1
        and rule.destination.network_address == destination
    ]
    if destination in node.own_addresses:
        seen = context(walk, here, node, "")
        ports = chains.chain("nat", "KUBE-NODEPORTS")
        rules += [rule for rule in ports if netfilter.matches(rule, seen) is not False]
    return rules


def context(
    walk: PathBuilder, here: PacketState, node: NodeView, out_device: str
) -> netfilter.Context:
    """Return the packet as netfilter sees it on a node.

    Args:
        walk: the walk.
        here: the packet.
        node: the node.
        out_device: the device that it leaves by, "" where the hook has none.
    """
    nodes = walk.cluster.node_addresses
    return netfilter.Context(
        here.packet.flow,
        here.in_device,
        out_device,
        _mark(here),
        "NEW",
        # pkg/ipmasq and pkg/datapath/ipset: Cilium keeps the nodes' addresses in this set.
        {"cilium_node_set_v4": nodes, "cilium_node_set_v6": nodes} if nodes else {},
        node.own_addresses,
    )


def _filter(walk: PathBuilder, here: PacketState, node: NodeView, chain: str, device: str) -> bool:
    """Add the filter table's verdict; return whether the packet goes on."""
    answer = node.ruleset(here.packet.flow.destination.version)
    where = here.on_node(HopKind.RULE)
    if not answer.facts:
        seen = walk.tracked.netfilter if walk.tracked else None
        evidence = walk.tracked.evidence[-1:] if walk.tracked and seen else ()
        walk.hop(
            *where,
            f"netfilter {chain}" + (": passed, nf_conntrack has the flow" if seen else ""),
            State.OBSERVED if seen else State.UNKNOWN,
            here.packet,
            evidence or cite.whole(answer.record),
            reason="" if seen else f"netfilter's rules could not be read: {answer.missing}",
            decides=Decides.DROP,
        )
        return True
    outcome = netfilter.traverse(
        answer.facts[0], "filter", chain, context(walk, here, node, device)
    )
    evidence = _rule_evidence(answer.record, outcome.rule, outcome.uncertain)
    named = _rule_text(outcome.rule) if outcome.rule else f"policy of {chain}"
    if outcome.target in ("DROP", "REJECT"):
        verb = "drops" if outcome.target == "DROP" else "rejects"
        walk.drop(
            *where,
            f"netfilter {verb} it in {chain}: {named}",
            State.DERIVED,
            here.packet,
            evidence,
            title=f"netfilter on {here.node} {verb} the packet in {chain}",
            detail=f"By {named}. Its counters (`iptables-save -c`) tell whether it grows.",
        )
        return False
    dropping = [r for r in outcome.uncertain if r.jump in ("DROP", "REJECT")]
    if dropping:
        walk.hop(
            *where,
            f"netfilter {chain}: accepted by {named}, unless {_rule_text(dropping[0])} matches",
            State.UNKNOWN,
            here.packet,
            evidence,
            reason="a dropping rule has matches that cannot be evaluated: "
            + (", ".join(dropping[0].other_matches) or "mark, set or port not known"),
            decides=Decides.DROP,
        )
        return True
    walk.hop(
        *where, f"netfilter {chain}: accepted by {named}", State.DERIVED, here.packet, evidence
    )
    return True


def _rule_text(rule: NetfilterRule) -> str:
    named = f"“{rule.comment}”" if rule.comment else rule.text
    return f"{rule.chain} rule {rule.number} {named}"


def _rule_evidence(
    record: Record | None, rule: NetfilterRule | None, uncertain: tuple[NetfilterRule, ...]
) -> tuple[Evidence, ...]:
    return cite.of(record, *(r.span for r in (rule, *uncertain[:3]) if r is not None))


def deliver(walk: PathBuilder, here: PacketState) -> None:
    """Deliver the packet to the node itself."""
    node = walk.cluster.node(here.node)
    if not here.skips_netfilter and not _filter(walk, here, node, "INPUT", ""):
        return
    walk.hop(
        *here.on_node(HopKind.DELIVERY),
        f"delivered to node {here.node} itself",
        State.DERIVED,
        here.packet,
    )
    walk.arrived(Destination.NODE, f"to node {here.node}")
