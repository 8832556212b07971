"""Cilium's forwarding decision: local endpoint, tunnel, egress gateway, or the node's routes.

Source: Cilium bpf/bpf_lxc.c (handle_ipv4_from_lxc); cilium-facts 4.4.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, own_packet
from kubectl_ebpfnet.explain.path.stages import host_firewall, to_gateway, tunnel_end, xdp
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.stages.only_device import by_only_device
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text, identity_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Endpoint, IpcacheEntry
from kubectl_ebpfnet.model.evidence import NOWHERE
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, HopPlace, State

_TO_NETDEV = ("cil_to_netdev", "to-netdev", "to_netdev")


def decide(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Decide where Cilium sends a packet that its policy let pass."""
    node = walk.cluster.node(here.node)
    destination = here.packet.flow.destination
    if destination in node.own_addresses or walk.cluster.node_of(destination) == here.node:
        asked = host_firewall.comes_in(walk, here, node, here.device)
        return here.to(Stage.HOST) if asked else None
    if node.local_endpoint(destination) is not None:
        return _local(walk, here, node)
    if walk.forth is None:  # an answer takes no gateway
        sent = to_gateway.at_pod(walk, here, node)
        if sent is not here:
            return sent
    entry = tunnel_entry(node, destination)
    if entry is not None:
        return _into_tunnel(walk, here, node, entry)
    own = node.ipcache_of(destination)
    if own is not None and node.config.routing_mode == "tunnel" and "skiptunnel" not in own.flags:
        tunnel_end.compare(walk, node, destination, own)
    else:
        tunnel_end.compare_unused(walk, node, destination)
    if node.host_routing.bpf:
        _doubt_tunnel(walk, node, destination)
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
    _doubt_tunnel(walk, node, here.packet.flow.destination)
    if here.by_xdp:
        return xdp.send_out(walk, here, node)
    return _by_fib(walk, here.to(here.stage, in_device=""), node)


def tunnel_entry(node: NodeView, address: Address) -> IpcacheEntry | None:
    """Return the ipcache's entry by which an address is reached in the tunnel, None without one."""
    entry = node.ipcache_of(address)
    if entry is None or entry.tunnel_endpoint is None or not is_tunnelled(node, entry):
        return None
    return entry


def _doubt_tunnel(walk: PathBuilder, node: NodeView, address: Address) -> None:
    """Say that what goes past the tunnel may go into it: neither the mode nor the devices were
    read, or not the ipcache's row of an address of the cluster."""
    entry, why = node.ipcache_of(address), ""
    if entry is None:
        if node.left_out(q.IPCACHE, address) and walk.cluster.in_cluster(address):
            why = f"the ipcache's row of {address} was not read"
    elif entry.tunnel_endpoint is not None and is_tunnelled(node, entry) is None:
        unread = node[q.LINKS].missing
        why = f"its routing mode is not known, and its devices were not read: {unread}"
    if why:
        walk.doubt(f"whether {node.name} sends to {address} in a tunnel: {why}", Decides.WAY)


def _local(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState:
    destination = here.packet.flow.destination
    if node.config.endpoint_routes:
        # Without ENABLE_ROUTING the endpoint map is asked where BPF host routing is on alone.
        entry = tunnel_entry(node, destination)
        if entry is not None and node.config.host_routing == "legacy":
            return _into_tunnel(walk, here, node, entry)
        tunnel_end.compare_unused(walk, node, destination)
        return here.to(Stage.HOST)
    tunnel_end.compare_unused(walk, node, destination)
    endpoint = node.local_endpoint(destination)
    assert endpoint is not None
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"{destination} is endpoint {endpoint.id} on this node: "
        "handed to its ingress program, past the node's stack",
        State.DERIVED,
        here.packet,
        _local_evidence(node, endpoint, destination),
        short="a pod of this node, past the node's stack",
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


def is_tunnelled(node: NodeView, entry: IpcacheEntry) -> bool | None:
    """Tell whether an entry with a tunnel endpoint is reached by the tunnel; None where neither the
    node's routing mode nor its devices were read.

    Cilium fills the tunnel endpoint in with native routing too, so the entry alone does not decide.
    """
    if "skiptunnel" in entry.flags:
        return False
    if node.config.routing_mode:
        return node.config.routing_mode != "native"
    if not node[q.LINKS].known:
        return None
    return any(link.name in ("cilium_vxlan", "cilium_geneve") for link in node[q.LINKS].facts)


def ipcache_evidence(node: NodeView, entry: IpcacheEntry | None) -> tuple[Evidence, ...]:
    """Cite an entry of the ipcache; () without an entry."""
    return cite.of(node[q.IPCACHE].record, entry.span) if entry is not None else ()


def _into_tunnel(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry
) -> PacketState:
    assert entry.tunnel_endpoint is not None
    tunnel_end.compare(walk, node, here.packet.flow.destination, entry)
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"ipcache: {entry.prefix} is {identity_text(walk.cluster, entry.identity)} behind tunnel "
        f"endpoint {address_text(walk.cluster, entry.tunnel_endpoint)}",
        State.DERIVED,
        here.packet,
        ipcache_evidence(node, entry),
        short=f"ipcache: behind {address_text(walk.cluster, entry.tunnel_endpoint)}",
    )
    return here.to(Stage.TUNNEL, device=str(entry.tunnel_endpoint))


def _by_fib(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Route the packet as BPF does, past the node's stack.

    With one device Cilium asks the kernel for the neighbour alone (ENABLE_SKIP_FIB, bpf/lib/fib.h):
    that look-up has no incoming device, so a rule on `iif lxc…` does not count.
    """
    flow = here.packet.flow
    devices = _devices(node)
    if len(devices) == 1:
        (only,) = devices
        other = _other_device(here, node, only)
        if not other:
            return by_only_device(walk, here, node, only)
        walk.hop(
            HopPlace.CILIUM, here.node, here.node, HopKind.ROUTE,
            f"the way to {flow.destination}", State.UNKNOWN, here.packet,
            cite.whole(node.config_record), decides=Decides.WAY,
            reason=f"the node's route is by {other}, which is none of Cilium's devices ({only}): "
            f"whether BPF host routing follows it, or sends by {only}, is not known",
        )  # fmt: skip
        here = here.to(here.stage, in_device="")
    elif not devices and here.in_device and _asks_device(here, node):
        walk.hop(
            HopPlace.CILIUM, here.node, here.node, HopKind.ROUTE,
            f"the route to {flow.destination}", State.UNKNOWN, here.packet,
            reason=f"a rule on {here.in_device} counts only where Cilium has several devices, and "
            "its devices are not known", decides=Decides.WAY,
        )  # fmt: skip
        here = here.to(here.stage, in_device="")
    decision = route_of(walk, here, node, flow.source, flow.destination, HopPlace.CILIUM)
    if decision is None or decision.route is None:
        return None
    note = " (fib_lookup in BPF host routing: past the node's netfilter)"
    proof = node.host_routing.evidence
    place = (HopPlace.CILIUM, here.node)
    route_hop(walk, here, node, decision, place, note, proof=proof, by_bpf=True)
    if decision.local:
        return here.to(Stage.NODE_LOCAL)
    return here.to(
        Stage.DEVICE,
        device=decision.route.device,
        skips_netfilter=True,
        next_hop=decision.route.gateway,
        route=decision.route,
    )


def _other_device(here: PacketState, node: NodeView, only: str) -> str:
    """Return the device of the node's own route where Cilium does not have that device, else ""."""
    flow = here.packet.flow
    tables = node_tables(node, flow.destination.version)
    if isinstance(tables, str):
        return ""
    decision = routing.decide(tables, own_packet(flow, user=0))
    route = decision.route
    if route is None or decision.refused or decision.local or not route.device:
        return ""
    return "" if route.device in (only, "cilium_host", "cilium_net") else route.device


def _devices(node: NodeView) -> frozenset[str]:
    """Return the devices that Cilium takes for the node's, as the agent says or as its program
    cil_to_netdev shows."""
    attached = (
        a.device for a in node[q.ATTACHMENTS].facts if a.program_name.startswith(_TO_NETDEV)
    )
    return frozenset(node.config.devices or attached)


def _asks_device(here: PacketState, node: NodeView) -> bool:
    """Tell whether a rule looks at the device that the packet came in by."""
    rules = node.rules(here.packet.flow.destination.version).facts
    return any(rule.in_device == here.in_device for rule in rules)
