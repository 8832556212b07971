"""Encapsulation: the packet goes into VXLAN or Geneve, its identity as the tunnel id.

Source: Cilium bpf/lib/encap.h; ports: cilium-facts 4.4 (8472 vxlan, 6081 geneve).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.explain.path.stages import losses, outer, xdp
from kubectl_ebpfnet.explain.path.stages.missing_programs import into_tunnel
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST, REMOTE_NODE
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.net import UDP, Address, Flow
from kubectl_ebpfnet.model.path import Evidence, Fix, HopKind, State
from kubectl_ebpfnet.model.shell import word

PORTS = {"vxlan": 8472, "geneve": 6081}


def device_of(node: NodeView) -> tuple[str, Link | None]:
    """Return name and link of a node's tunnel device; the link is None where not read."""
    protocols = (node.config.tunnel_protocol,) if node.config.tunnel_protocol else tuple(PORTS)
    there = [name for name in (f"cilium_{each}" for each in protocols) if node.link(name)]
    name = there[0] if there else f"cilium_{protocols[0]}"
    return name, node.link(name)


def is_open(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether a node's tunnel device takes packets, and drop the packet where it does not.

    Args:
        walk: takes hops and findings.
        here: the packet at the sender, or encapsulated at the receiver.
        node: the node whose device it is.
    """
    name, link = device_of(node)
    sent = here.packet.outer
    sent_to = sent.destination_port if sent is not None else None
    state, fix = State.DERIVED, None
    if link is None and node[q.LINKS].known:
        what = f"no tunnel device {name}"
        detail = "The agent makes it: see its log, and the setting of the tunnel's protocol."
    elif link is not None and not link.up:
        what, state = f"{name} is down", State.OBSERVED
        detail = f"`ip link set {word(name)} up` on the node, or restart its Cilium agent."
        fix = Fix(f"Set the device of node {here.node} up.", f"ip link set {word(name)} up")
    elif link is not None and sent_to and link.tunnel_port not in (None, sent_to):
        what = f"{name} listens at UDP port {link.tunnel_port}, not at {sent_to}"
        detail = "The nodes have different tunnel ports (tunnel-port)."
    else:
        return True
    walk.drop(
        *here.on_node(HopKind.LINK), what, state, here.packet, device_evidence(node, link),
        title=f"tunnel device {name} of {here.node}: {what}", detail=detail, fix=fix,
    )  # fmt: skip
    return False


def device_evidence(node: NodeView, link: Link | None) -> tuple[Evidence, ...]:
    """Cite a tunnel device; the whole list of devices where it has none."""
    record = node[q.LINKS].record
    keep = ("ifindex", "ifname", "flags", "mtu", "linkinfo")
    return cite.of(record, link.span.head(), keep=keep) if link is not None else cite.whole(record)


def encapsulate(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Encapsulate the packet for the tunnel's other end, whose address is `here.device`, and route
    the outer packet."""
    node = walk.cluster.node(here.node)
    end: Address = ip_address(here.device)
    name, link = device_of(node)
    if not here.by_xdp and not is_open(walk, here, node):
        return None
    evidence = device_evidence(node, link)
    source = outer.node_address(walk, here.node, end.version)
    if source is None:
        reason = f"the address of {here.node} is not known"
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL, name), f"encapsulated for {end}",
            State.UNKNOWN, here.packet, evidence, reason=reason,
        )  # fmt: skip
        walk.unknown(reason)
        return None
    port = (link.tunnel_port if link else None) or PORTS.get(node.config.tunnel_protocol, 8472)
    # The receiver sees packets of the node itself as a remote node's (__encap_with_nodeid).
    identity = REMOTE_NODE if here.identity == HOST else here.identity
    packet = replace(here.packet, outer=Flow(UDP, source, None, end, port), vni=identity or None)
    if not here.by_xdp:
        into_tunnel(walk, here, name, show_programs(walk, here, name, "egress"))
        if not losses.sends(walk, here, node, name):
            return None
    protocol = (node.config.tunnel_protocol or "vxlan").upper()
    vni = f", VNI {identity} (the sender's identity)" if identity else ""
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL, name),
        f"encapsulated by {xdp.PROGRAM if here.by_xdp else name} ({protocol}): outer {source} → "
        f"{address_text(walk.cluster, end)}, UDP port {port}{vni}",
        State.DERIVED,
        packet,
        evidence,
        short=f"{xdp.PROGRAM if here.by_xdp else name} ({protocol}) to "
        f"{address_text(walk.cluster, end)}",
    )
    if here.by_xdp:
        return xdp.send_out(walk, here.to(here.stage, packet=packet), node)
    left = outer.leave(walk, here.to(here.stage, packet=packet), node)
    return left.to(Stage.DEVICE) if left is not None else None
