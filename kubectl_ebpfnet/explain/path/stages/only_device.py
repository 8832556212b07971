"""The route of a packet out of a node with BPF host routing and one device: `bpf_redirect_neigh`.

The kernel looks the route up as for a packet of the node itself that is bound to the device, and
takes an IPv4 destination to be on the link where there is none (ip_route_output_key_hash_rcu).

Sources: Cilium bpf/lib/fib.h (fib_redirect, ENABLE_SKIP_FIB); Linux net/core/filter.c,
net/ipv4/route.c.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, own_packet
from kubectl_ebpfnet.explain.kernel.rule_match import rule_text
from kubectl_ebpfnet.explain.path.stages.no_route import drop_refused, end_not_known, end_not_read
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, without_rules
from kubectl_ebpfnet.explain.path.stages.route_evidence import route_evidence
from kubectl_ebpfnet.explain.path.stages.route_fix import delete_what_refuses
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    Fix,
    HopKind,
    HopPlace,
    Severity,
    State,
)


def by_only_device(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str
) -> PacketState | None:
    """Send a packet out by the only device of a node with BPF host routing.

    Args:
        walk: takes hops.
        here: the packet on the node.
        node: the node.
        device: its only device.
    """
    flow = here.packet.flow
    version = flow.destination.version
    tables = node_tables(node, version)
    if isinstance(tables, str):
        end_not_read(walk, here, node, HopPlace.CILIUM, flow.destination, tables)
        return None
    # The look-up is bound to the device: only its routes count, and a rule on an incoming device
    # is never asked.
    routes = [r for r in tables.routes if r.device == device or not r.device]
    bound = replace(tables, routes=routes)
    packet = replace(own_packet(flow, user=0), out_device=device, to_client=walk.forth is not None)
    decision = routing.decide(bound, packet)
    marked = routing.decide(bound, replace(packet, mark=_identity_mark(here.identity)))
    if marked.ends_at != decision.ends_at:  # it depends on the version whether Cilium marks it
        reason = (
            "whether the packet has Cilium's identity mark, which a rule looks at, is not known"
        )
        decision = replace(decision, undecided=decision.undecided or reason)
    place = (HopPlace.CILIUM, here.node)
    passed_over = [r for r in tables.rules or () if r.in_device and r.in_device == here.in_device]
    named = "".join(f", and past {rule_text(rule)}" for rule in passed_over[:1])
    note = f" (BPF host routing: past the node's netfilter{named})"
    usable = decision.route is not None and not decision.refused
    if decision.undecided and not usable:
        end_not_known(walk, here, node, HopPlace.CILIUM, flow.destination, decision.undecided)
        return None
    if not usable and version == 6:
        drop_refused(walk, here, node, decision, flow.destination, (), None)
        return None
    decision = without_rules(walk, here, node, tables, decision, flow.destination)
    if not usable or decision.route is None:
        refusing = route_evidence(node, decision) or cite.whole(node[q.ROUTES].record)
        walk.hop(
            *place, here.node, HopKind.ROUTE,
            f"{flow.destination} is asked for on {device} itself: {decision.refused}{note}",
            State.DERIVED, here.packet, refusing + node.host_routing.evidence,
        )  # fmt: skip
        on_link = (r for r in routes if r.device and r.gateway is None)
        if not any(flow.destination in route.destination for route in on_link):
            _asks_in_vain(walk, node, device, flow.destination, decision, refusing)
        return here.to(Stage.DEVICE, device=device, skips_netfilter=True, next_hop=None)
    route_hop(
        walk, here, node, decision, place, note, proof=node.host_routing.evidence, by_bpf=not named
    )
    next_hop = decision.route.gateway
    return here.to(
        Stage.DEVICE, device=device, skips_netfilter=True, next_hop=next_hop, route=decision.route
    )


def _asks_in_vain(
    walk: PathBuilder,
    node: NodeView,
    device: str,
    target: Address,
    decision: Decision,
    evidence: tuple[Evidence, ...],
) -> None:
    """Report a destination that no route says to be on the link, where its MAC is asked for."""
    title = f"{node.name} has no route to {target}, and asks for its MAC on {device}"
    fix = Fix(f"Give {node.name} a route to {target}: its default route.", "ip route")
    by = delete_what_refuses(decision, f"on {node.name}", target.version)
    if by is not None:
        title = f"{decision.refused} on {node.name}, which asks for the MAC of {target} on {device}"
        fix = by
    walk.finding(
        Severity.WARNING if walk.answered_now() else Severity.ERROR, title,
        f"It arrives only if somebody on the link answers for {target}, as a router with proxy ARP "
        "does.",
        evidence,
    )  # fmt: skip
    if not walk.answered_now():
        walk.doubt(f"{title}, where only proxy ARP answers", Decides.DROP, fix)


def _identity_mark(identity: int) -> int:
    """Return the mark by which Cilium hands an identity on (bpf/lib/common.h)."""
    return (identity & 0xFFFF) << 16 | 0x0F00 | identity >> 16 & 0xFF
