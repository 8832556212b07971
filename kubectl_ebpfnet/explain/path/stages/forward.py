"""Cilium's forwarding decision: local endpoint, tunnel, egress gateway, or the node's routes.

Source: Cilium bpf/bpf_lxc.c (handle_ipv4_from_lxc); cilium-facts 4.4.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.routing import describe
from kubectl_ebpfnet.explain.path.stages import gateway
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text, identity_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Endpoint, IpcacheEntry
from kubectl_ebpfnet.model.evidence import NOWHERE
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, HopPlace, Severity, State

_TO_NETDEV = ("cil_to_netdev", "to-netdev", "to_netdev")


def decide(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Decide where Cilium sends a packet that its policy let pass."""
    node = walk.cluster.node(here.node)
    destination = here.packet.flow.destination
    if destination in node.own_addresses or walk.cluster.node_of(destination) == here.node:
        return here.to(Stage.HOST)
    if node.local_endpoint(destination) is not None:
        return _local(walk, here, node)
    row = gateway.policy_row(walk, here, node)
    if row is not None:
        return gateway.to_gateway(walk, here, node, row)
    _egress_gateway_unread(walk, here, node)
    entry = tunnel_entry(node, destination)
    if entry is not None:
        return _into_tunnel(walk, here, node, entry)
    if node.host_routing.bpf:
        return _by_fib(walk, here, node)
    return here.to(Stage.HOST)


def to_other_node(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send a packet on to a backend of another node, past the node's stack.

    Args:
        walk: takes hops and findings.
        here: the packet.
        node: the node that load-balanced it.
    """
    entry = tunnel_entry(node, here.packet.flow.destination)
    if entry is not None:
        return _into_tunnel(walk, here, node, entry)
    return _by_fib(walk, here.to(here.stage, in_device=""), node)


def tunnel_entry(node: NodeView, address: Address) -> IpcacheEntry | None:
    """Return the ipcache's entry by which an address is reached in the tunnel, None without one."""
    entry = node.ipcache_of(address)
    if entry is None or entry.tunnel_endpoint is None or not _tunnelled(node, entry):
        return None
    return entry


def _egress_gateway_unread(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    reason = gateway.undecided(walk, here, node)
    if reason:
        walk.hop(
            *here.in_cilium(HopKind.ROUTE), "by an egress gateway, or by this node",
            State.UNKNOWN, here.packet, cite.whole(node[q.EGRESS_GATEWAY].record),
            reason=reason, decides=Decides.WAY,
            fix=Fix("Read the map.", node.cilium("bpf egress list")),
        )  # fmt: skip


def _local(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState:
    if node.config.endpoint_routes:
        return here.to(Stage.HOST)
    endpoint = node.local_endpoint(here.packet.flow.destination)
    assert endpoint is not None
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"{here.packet.flow.destination} is endpoint {endpoint.id} on this node: "
        "handed to its ingress program, past the node's stack",
        State.DERIVED,
        here.packet,
        _local_evidence(node, endpoint, here.packet.flow.destination),
    )
    return here.to(Stage.ENDPOINT, device=endpoint.interface, skips_netfilter=True)


def _local_evidence(node: NodeView, endpoint: Endpoint, address: Address) -> tuple[Evidence, ...]:
    """Cite the datapath's own row of an address, or the endpoint where there is none."""
    spans = [row.span for row in node.having(q.ENDPOINT_MAP, address, "address")]
    if not spans:
        return endpoint_evidence(node, endpoint)
    return cite.of(node[q.ENDPOINT_MAP].record, *spans)


def endpoint_evidence(node: NodeView, endpoint: Endpoint) -> tuple[Evidence, ...]:
    """Cite an endpoint in the agent's list; () where it is of another table."""
    if endpoint.span == NOWHERE:
        return ()
    return cite.of(node[q.ENDPOINTS].record, endpoint.span.member("status", "networking"))


def _tunnelled(node: NodeView, entry: IpcacheEntry) -> bool:
    """Tell whether an entry with a tunnel endpoint is reached by the tunnel.

    Cilium fills the tunnel endpoint in with native routing too, so the entry alone does not decide.
    """
    if "skiptunnel" in entry.flags:
        return False
    if node.config.routing_mode:
        return node.config.routing_mode != "native"
    return any(link.name in ("cilium_vxlan", "cilium_geneve") for link in node[q.LINKS].facts)


def ipcache_evidence(node: NodeView, entry: IpcacheEntry | None) -> tuple[Evidence, ...]:
    """Cite an entry of the ipcache; () without an entry."""
    return cite.of(node[q.IPCACHE].record, entry.span) if entry is not None else ()


def _into_tunnel(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry
) -> PacketState:
    assert entry.tunnel_endpoint is not None
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"ipcache: {entry.prefix} is {identity_text(walk.cluster, entry.identity)} behind tunnel "
        f"endpoint {address_text(walk.cluster, entry.tunnel_endpoint)}",
        State.DERIVED,
        here.packet,
        ipcache_evidence(node, entry),
    )
    return here.to(Stage.TUNNEL, device=str(entry.tunnel_endpoint))


def _by_fib(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Route the packet as BPF does, past the node's stack.

    With one device Cilium asks the kernel for the neighbour alone (ENABLE_SKIP_FIB, bpf/lib/fib.h):
    that look-up has no incoming device, so a rule on `iif lxc…` does not count.
    """
    flow = here.packet.flow
    without = here.to(here.stage, in_device="")
    one = len(_devices(node)) == 1
    if not one and _differs(here, node) and not node.config.devices:
        walk.hop(
            HopPlace.CILIUM, here.node, here.node, HopKind.ROUTE,
            f"the route to {flow.destination}", State.UNKNOWN, here.packet,
            reason=f"a rule on {here.in_device} counts only where Cilium has several devices, and "
            "its devices are not known", decides=Decides.WAY,
        )  # fmt: skip
    here = here if node.config.devices and not one else without
    decision = route_of(walk, here, node, flow.source, flow.destination, HopPlace.CILIUM)
    if decision is None or decision.route is None:
        return None
    walk.hop(
        HopPlace.CILIUM,
        here.node,
        here.node,
        HopKind.ROUTE,
        f"{describe(decision.route)} (fib_lookup in BPF host routing: past the node's netfilter)",
        State.DERIVED,
        here.packet,
        route_evidence(node, decision.route)
        + kernel_evidence(here, node, flow.source, flow.destination)
        + node.host_routing.evidence,
    )
    if decision.local:
        return here.to(Stage.NODE_LOCAL)
    return here.to(
        Stage.DEVICE,
        device=decision.route.device,
        skips_netfilter=True,
        next_hop=decision.route.gateway,
    )


def _devices(node: NodeView) -> frozenset[str]:
    """Return the devices that Cilium takes for the node's, as the agent says or as its program
    cil_to_netdev shows."""
    attached = (
        a.device for a in node[q.ATTACHMENTS].facts if a.program_name.startswith(_TO_NETDEV)
    )
    return frozenset(node.config.devices or attached)


def _differs(here: PacketState, node: NodeView) -> bool:
    """Tell whether the incoming device changes the route."""
    flow = here.packet.flow
    with_device, without = (
        routing.decide(
            node[q.RULES].facts, node[q.ROUTES].facts, flow.source, flow.destination, in_device=name
        )
        for name in (here.in_device, "")
    )
    return with_device != without


def route_of(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    source: Address,
    destination: Address,
    place: HopPlace = HopPlace.NODE,
    *,
    mark: int = 0,
) -> routing.Decision | None:
    """Look the packet up in the node's routes, and add a hop where there is no usable route.

    Args:
        walk: takes hops and findings.
        here: the packet on the node.
        node: the node.
        source, destination: of the routed packet: the outer packet in a tunnel.
        place: who looks the route up: the node's stack, or Cilium by fib_lookup.
        mark: skb mark of the packet.

    Returns:
        The decision; None when the packet is dropped or the routes are not known.
    """
    if not node[q.ROUTES].known:
        reason = f"the node's routes could not be read: {node[q.ROUTES].missing}"
        walk.hop(
            place, here.node, here.node, HopKind.ROUTE, f"the route to {destination}",
            State.UNKNOWN, here.packet, cite.whole(node[q.ROUTES].record), reason=reason,
        )  # fmt: skip
        walk.unknown(reason)
        return None
    decision = routing.decide(
        node[q.RULES].facts,
        node[q.ROUTES].facts,
        source,
        destination,
        mark=mark,
        in_device=here.in_device,
    )
    decision, kernel_proof = _with_kernel_answer(here, node, decision, source, destination, mark)
    if decision.differs:
        walk.finding(
            Severity.INFO,
            f"node {here.node} sends {destination} by "
            f"{describe(decision.route) if decision.route else decision.refused}, "
            f"where its tables read as {decision.differs}",
            "The kernel's own look-up counts. A rule by port, protocol or user, a VRF, or one of "
            "several next hops may be the reason.",
            kernel_proof,
        )
    if decision.route is not None and not decision.refused:
        return decision
    refusing, record = decision.route, node[q.ROUTES].record
    evidence = kernel_proof or (
        route_evidence(node, refusing) if refusing is not None else cite.whole(record)
    )
    walk.drop(
        *here.on_node(HopKind.ROUTE),
        f"{decision.refused} on {here.node}",
        State.DERIVED,
        here.packet,
        evidence,
        title=f"node {here.node} has {decision.refused}",
        detail=f"`ip route get {destination}` on the node shows the same. A route to "
        "another node's pods is set by Cilium (auto-direct-node-routes) or by the network.",
    )
    return None


def _with_kernel_answer(
    here: PacketState,
    node: NodeView,
    decision: routing.Decision,
    source: Address,
    destination: Address,
    mark: int,
) -> tuple[routing.Decision, tuple[Evidence, ...]]:
    """Correct a decision by the kernel's own look-up, where a node pod recorded it; with proof."""
    answer = node[q.FORWARD.about(*q.packet_words(source, destination))]
    fact = next((fact for fact in answer.facts if fact.in_device == here.in_device), None)
    if fact is None:
        return decision, ()
    # The look-up had no mark, which Cilium sets: it is valid only if no rule looks at the mark.
    unmarked = routing.decide(
        node[q.RULES].facts, node[q.ROUTES].facts, source, destination, in_device=here.in_device
    )
    if mark and unmarked != decision:
        return decision, ()
    found = routing.with_kernel_answer(decision, fact, node[q.ROUTES].facts)
    return found, kernel_evidence(here, node, source, destination)


def kernel_evidence(
    here: PacketState, node: NodeView, source: Address, destination: Address
) -> tuple[Evidence, ...]:
    """Cite the kernel's own look-up for a pod's packet; () where none is recorded.

    Args:
        here: the packet on the node.
        node: the node.
        source, destination: of the routed packet.
    """
    answer = node[q.FORWARD.about(*q.packet_words(source, destination))]
    spans = [fact.span for fact in answer.facts if fact.in_device == here.in_device]
    return cite.of(answer.record, *spans) if spans else ()


def route_evidence(node: NodeView, route: Route) -> tuple[Evidence, ...]:
    """Cite a route in the record that it was read from."""
    return cite.of(node[q.ROUTES].record, route.span)
