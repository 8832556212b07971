"""The receiving node: its device's ingress programs, decapsulation, and the route to the pod.

Source: cilium-facts 4.4; Cilium bpf/bpf_host.c (cil_from_netdev), bpf/bpf_overlay.c
(cil_from_overlay).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.devices import lower_devices
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, way_back
from kubectl_ebpfnet.explain.kernel.routing import decide
from kubectl_ebpfnet.explain.path.own_flow import incoming_at
from kubectl_ebpfnet.explain.path.stages import (
    forward,
    gateway,
    host_firewall,
    nodeport,
    outer,
    reply_nat,
    size,
    vrf,
    xdp,
)
from kubectl_ebpfnet.explain.path.stages.device_hooks import pass_device
from kubectl_ebpfnet.explain.path.stages.encryption import decrypt
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_below
from kubectl_ebpfnet.explain.path.stages.link_state import takes_packets
from kubectl_ebpfnet.explain.path.stages.losses import device_losses
from kubectl_ebpfnet.explain.path.stages.missing_programs import (
    is_ciliums,
    report_absent,
    report_no_xdp,
    without_cilium,
)
from kubectl_ebpfnet.explain.path.stages.node_route import takes_outer
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.stages.tail_calls import calls_nothing
from kubectl_ebpfnet.explain.path.stages.tunnel import device_evidence, device_of, is_open
from kubectl_ebpfnet.explain.path.stages.veth import has_cilium
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import WORLD
from kubectl_ebpfnet.model.path import HopKind, State


def enter(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Receive the packet at another node, from the wire."""
    node = walk.cluster.node(here.node)
    tracked = incoming_at(walk, here) if walk.forth is None else None
    if tracked is not None and tracked not in walk.flows:
        walk.flows.append(tracked)
    if _is_unread(walk, here, node):
        return None
    device = _device(node, here)
    if _is_down(walk, here, node, device):
        return None
    if not size.into_node(walk, here, node, device):
        return None
    here = here.to(here.stage, next_hop=None, route=None, added=0)
    walk.links.append((here.node, device))
    for name in (device, *lower_devices(node, device)):
        device_losses(walk, node, name, "rx")
    show_below(walk, here, device, "ingress")
    xdp.ways_meet(walk)
    by_xdp = xdp.balances(walk, here, node, device)
    if by_xdp is None:
        xdp.either_way(walk, here, node, device)
    if by_xdp:
        show_programs(walk, here, device, "ingress", xdp=True)
        balanced = nodeport.balance(walk, here, node, device, by_xdp=True)
        if balanced is None or balanced.stage is not here.stage:
            return balanced
        here = balanced
    rest = False if by_xdp else None  # XDP's programs were shown
    cilium = show_programs(walk, here, device, "ingress", xdp=rest)
    report_no_xdp(walk, here, node, device)
    if cilium is Presence.PRESENT and calls_nothing(walk, here, node, device):
        return None
    if here.sealed is not None:
        if not _outer_comes_in(walk, here, node, device):
            return None
        decrypted = decrypt(walk, here.to(here.stage, device=device), node)
        if decrypted is None:
            return None
        here, device = decrypted.to(here.stage, device=""), decrypted.device
    here = here.to(here.stage, encrypted="")
    missing = cilium is Presence.ABSENT and is_ciliums(node, device)
    if here.packet.outer is not None:
        if missing:
            report_absent(walk, here, device, "network")
        if not _outer_comes_in(walk, here, node, device):
            return None
        return _out_of_tunnel(walk, here, node)
    if missing:
        without_cilium(walk, here, device, "network")
        return here.to(Stage.HOST, in_device=device)
    return _inside(walk, here, node, device)


def _outer_comes_in(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the packet that carries it, of a tunnel or encrypted, come to the node's own stack."""
    assert here.packet.outer is not None
    vrf.gives_to_socket(walk, here, node, device, here.packet.outer.protocol)
    return (
        host_firewall.carrier_comes_in(walk, here, node, device)
        and pass_device(walk, here, node, device, "ingress") is not None
        and (here.sealed is not None or outer.is_for(walk, here, node, device))
        and outer.may_come_in(walk, here, node, device)
        and takes_outer(walk, here, node, device)
    )


def _is_unread(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """End the walk at a node of which nothing was read; return whether it is one."""
    if node[q.LINKS].known or node[q.ENDPOINTS].known or node[q.ENDPOINT_MAP].known:
        return False
    why = f"nothing is known of {here.node}: {node[q.LINKS].missing}"
    walk.links.append((here.node, ""))
    walk.unread.append(here.node)
    walk.hop(
        *here.on_node(HopKind.LINK), f"what {here.node} does with it",
        State.UNKNOWN, here.packet, reason=why,
    )  # fmt: skip
    walk.unknown(why)
    return True


def _inside(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str
) -> PacketState | None:
    """Deliver what came in by a device without a tunnel: a frontend, the node, or a pod."""
    balanced = _balanced(walk, here, node, device) if has_cilium(walk, node) else here
    if balanced is None or balanced.stage is not Stage.ARRIVAL:
        return balanced
    here = balanced
    if not host_firewall.comes_in(walk, here, node, device):
        return None
    destination = here.packet.flow.destination
    entered = here.to(Stage.HOST, in_device=device)
    if destination in node.own_addresses or walk.cluster.node_of(destination) == here.node:
        return entered
    endpoint = node.local_endpoint(destination)
    if endpoint is None and not has_cilium(walk, node):
        return entered
    if endpoint is not None and node.host_routing.bpf:
        walk.hop(
            *here.in_cilium(HopKind.ROUTE, device),
            f"{destination} is endpoint {endpoint.id}: BPF host routing hands it to its ingress "
            "program",
            State.DERIVED, here.packet, short="a pod of this node (BPF host routing)",
        )  # fmt: skip
        return here.to(Stage.ENDPOINT, device=endpoint.interface, skips_netfilter=True)
    return entered


def _balanced(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str
) -> PacketState | None:
    """Send a packet for a frontend on to a backend, or an answer back to the pod that it is for."""
    if walk.forth is None:
        return nodeport.balance(walk, here, node, device)
    sent = reply_nat.undo(walk, here, reply_nat.Undone.BY_CILIUM)
    target = sent.packet.flow.destination
    if target == here.packet.flow.destination or target in node.own_addresses:
        return sent
    if node.local_endpoint(target) is not None or walk.ends.source.node == here.node:
        return sent
    # A client's, or another node's pod, for which this one is the gateway or the load-balancer.
    came = [hop for hop in walk.forth.hops if (hop.kind, hop.node) == (HopKind.TUNNEL, here.node)]
    entry = node.ipcache_of(target)
    if came and entry is not None and entry.tunnel_endpoint is not None:
        identity = WORLD if walk.sender.kind == "address" else sent.identity
        return sent.to(Stage.TUNNEL, device=str(entry.tunnel_endpoint), identity=identity)
    return forward.to_other_node(walk, sent.to(sent.stage, device=device), node)


def _device(node: NodeView, here: PacketState) -> str:
    flow = here.packet.outer or here.packet.flow
    # Who sends to a next hop has asked for its MAC: the device that has the address answers.
    for target in (here.next_hop, flow.destination):
        for fact in node[q.ADDRESSES].facts:
            if fact.address == target:
                return fact.device
    tables = node_tables(node, flow.source.version)
    if not isinstance(tables, str):
        # On an ordinary node the packet comes in by the device of the route to its sender.
        back = decide(tables, way_back(flow.destination, flow.source))
        device = back.route.device if back.route is not None else ""
        if device and not device.startswith(("cilium_", "lxc")):
            return device
    return next(iter(node.config.devices), "eth0")


def _is_down(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Drop the packet where the device that has the address that the sender resolved is down."""
    target = here.next_hop or (here.packet.outer or here.packet.flow).destination
    if target not in node.addresses_of(device, target.version):
        return False
    called = f"device {device} of node {here.node}, which has {target},"
    return not takes_packets(walk, here, node, device, called)


def _out_of_tunnel(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    name, link = device_of(node)
    if not is_open(walk, here, node):
        return None
    packet = replace(here.packet, outer=None, vni=None)
    identity = here.packet.vni or here.identity
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL, name),
        f"decapsulated by {name}"
        + (f", VNI {here.packet.vni} is the sender's identity" if here.packet.vni else ""),
        State.DERIVED,
        packet,
        device_evidence(node, link) if link is not None else (),
        short=f"out of {name}",
    )
    inside = here.to(Stage.ENDPOINT, packet=packet, identity=identity, skips_netfilter=True)
    device_losses(walk, node, name, "rx")
    if show_programs(walk, inside, name, "ingress") is Presence.ABSENT:
        without_cilium(walk, inside, name, "tunnel")
        return inside.to(Stage.HOST, device="", in_device=name, skips_netfilter=False)
    if calls_nothing(walk, inside, node, name):
        return None
    balanced = _balanced(walk, inside, node, name)
    if balanced is None or balanced.stage is not inside.stage:
        return balanced
    inside = balanced
    if not host_firewall.comes_in(walk, inside, node, name):
        return None
    destination = inside.packet.flow.destination
    if destination in node.own_addresses:
        return inside.to(Stage.HOST, in_device=name, skips_netfilter=False)
    endpoint = node.local_endpoint(destination)
    if endpoint is None:
        sent = gateway.out_of_tunnel(walk, inside, node, name)
        if sent is not inside:
            return sent
    endpoints_known = node[q.ENDPOINTS].known or node[q.ENDPOINT_MAP].known
    if endpoint is None and endpoints_known and node[q.ROUTES].known:
        # Packets for no endpoint go to the stack, which has a route by cilium_host.
        return inside.to(Stage.HOST, device="", in_device=name, skips_netfilter=False)
    if endpoint is None:
        walk.hop(
            *here.in_cilium(HopKind.ROUTE, name), f"{destination} on {here.node}",
            State.UNKNOWN, packet,
            reason=f"no endpoint with {destination} was read on {here.node}: "
            f"{node[q.ENDPOINTS].missing or node[q.ROUTES].missing}",
        )  # fmt: skip
        walk.unknown(f"no endpoint with {destination} is known on {here.node}")
        return None
    return inside.to(Stage.ENDPOINT, device=endpoint.interface)
