"""How large a packet a device takes, and what the kernel does to a larger one that has DF set.

Sources: Linux net/ipv4/ip_forward.c and net/ipv6/ip6_output.c (the stack tells the sender; the MTU
of a route counts before its device's), include/linux/netdevice.h (__is_skb_forwardable: a veth
drops what is larger than the MTU of its other end and a VLAN tag, but for segments that are still
to be cut), drivers/net/vxlan/vxlan_core.c and geneve.c (the outer packet has DF only where it is
asked for, and Cilium does not ask: over IPv4 it is fragmented, over IPv6 dropped),
drivers/net/wireguard/socket.c (ignore_df: it is fragmented), net/core/filter.c (a redirect looks at
no MTU).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Link, Route
from kubectl_ebpfnet.model.path import Evidence, Larger, Packet

TUNNEL_HEADERS = 8 + 8 + 14
"""UDP, VXLAN (or Geneve without options) and the inner Ethernet header."""
WIREGUARD_HEADERS = 8 + 32
"""UDP, and WireGuard's header and tag."""
VLAN_TAG = 4
"""Bytes that a veth takes beyond its MTU."""
ESP = 77
"""The most that IPsec adds, as Cilium reckons it (pkg/mtu, EncryptionIPsecOverhead): it varies by
cipher and padding, from 54 bytes with AES-GCM on."""
_IP_HEADER = {4: 20, 6: 40}
_TCP_HEADERS = {4: 40, 6: 60}


@dataclass(frozen=True, slots=True)
class Limit:
    """How large a packet a place takes.

    Attributes:
        node: the node that it is on.
        device: name of the device.
        by: what limits it: the device, or a route.
        mtu: bytes, None where it was not read.
        added: bytes that encapsulation has added to the packet when it comes there.
        larger: what becomes of a larger one.
        evidence: the proof.
        beyond: bytes that it takes beyond its MTU.
    """

    node: str
    device: str
    by: str
    mtu: int | None
    added: int
    larger: Larger
    evidence: tuple[Evidence, ...] = ()
    beyond: int = 0

    @property
    def fits(self) -> int | None:
        """The largest packet before encapsulation that passes."""
        return None if self.mtu is None else self.mtu - self.added

    @property
    def text(self) -> str:
        """The place in words, e.g. `eth0 of node a (MTU 1300, of which the tunnel takes 50)`."""
        takes = f", of which encapsulation takes {self.added}" if self.added else ""
        return f"{self.by} of node {self.node} (MTU {self.mtu}{takes})"


@dataclass(frozen=True, slots=True)
class Sender:
    """The size of the packets that an end sends.

    Attributes:
        name: `pod default/client`, `node a`.
        mtu: the largest packet that it sends as one.
        by: what limits it.
        announced: the largest packet that it lets the other end of a TCP connection send (its MSS).
        evidence: the proof.
    """

    name: str
    mtu: int
    by: str
    announced: int
    evidence: tuple[Evidence, ...]


def added_by(packet: Packet, encrypted: str) -> int:
    """Return how many bytes encapsulation adds to a packet as it is on the wire.

    Args:
        packet: with the outer packet of its tunnel; before it was encrypted.
        encrypted: as in PacketState.
    """
    header = _IP_HEADER[(packet.outer or packet.flow).destination.version]
    added = TUNNEL_HEADERS + header if packet.outer is not None else 0
    if encrypted.startswith("WireGuard"):
        added += WIREGUARD_HEADERS + header
    elif encrypted:
        added += ESP
    return added


def becomes(packet: Packet, encrypted: str, *, by_bpf: bool) -> Larger:
    """Return what a node does to a packet that is larger than its egress device takes.

    Args:
        packet: with its outer packet.
        encrypted: as in PacketState.
        by_bpf: it goes past the node's stack, or may.
    """
    if encrypted:
        return Larger.FRAGMENTED if encrypted.startswith("WireGuard") else Larger.UNKNOWN
    if packet.outer is not None:
        return Larger.FRAGMENTED if packet.outer.destination.version == 4 else Larger.LOST
    return Larger.UNKNOWN if by_bpf else Larger.TOLD


def sender_of_pod(
    name: str, netns: PodNetns, route: Route, learned: int | None = None
) -> Sender | None:
    """Return the size of what a pod sends by a route; None where it was not read.

    Args:
        name: of the pod.
        netns: of the pod.
        route: that it takes.
        learned: path MTU that its kernel has learned for this destination.
    """
    link = netns.link(route.device)
    record = netns.routes(route.destination.version).record
    if record is None or record.argv[0] in ("cat", "route"):
        return None  # /proc/net/route and net-tools do not tell a route's MTU
    evidence = cite.of(record, route.span)
    if link is not None:
        evidence += cite.of(netns[q.POD_LINKS].record, link.span.head(), keep=("ifname", "mtu"))
    return _sender(f"pod {name}", link, route, learned, evidence)


def sender_of_node(node: NodeView, route: Route) -> Sender | None:
    """Return the size of what a node sends itself by a route; None where it was not read."""
    evidence = cite.of(node[q.ROUTES].record, route.span)
    return _sender(f"node {node.name}", node.link(route.device), route, None, evidence)


def _sender(
    name: str,
    link: Link | None,
    route: Route,
    learned: int | None,
    evidence: tuple[Evidence, ...],
) -> Sender | None:
    device_mtu = link.mtu if link is not None else None
    known = [each for each in (device_mtu, route.mtu, learned) if each is not None]
    if not known or (route.mtu is None and device_mtu is None):
        return None
    mtu = min(known)
    by = "its route" if mtu == route.mtu else f"its {route.device}"
    if mtu not in (route.mtu, device_mtu):
        by = "a path MTU that its kernel has learned"
    headers = _TCP_HEADERS[route.destination.version]
    own = min(each for each in (device_mtu, route.mtu) if each is not None)
    announced = own if route.advmss is None else min(own, route.advmss + headers)
    return Sender(name, mtu, by, announced, evidence)


def leaving(node: NodeView, device: str, route: Route | None, added: int, larger: Larger) -> Limit:
    """Return what a node's egress device takes, or the route to it.

    Args:
        node: the node.
        device: its name.
        route: that was taken; None where its MTU does not count.
        added: as in Limit.
        larger: as in Limit.
    """
    link = node.link(device)
    mtu = link.mtu if link is not None else None
    if route is not None and route.mtu is not None and (mtu is None or route.mtu < mtu):
        by = f"the route to {route.destination} by {device}"
        evidence = cite.of(node[q.ROUTES].record, route.span)
        return Limit(node.name, device, by, route.mtu, added, larger, evidence)
    return Limit(node.name, device, device, mtu, added, larger, _proof(node, link))


def coming_in(node: NodeView, device: str, added: int) -> Limit:
    """Return what a device of a node takes from the other end of its wire."""
    link = node.link(device)
    mtu = link.mtu if link is not None else None
    proof = _proof(node, link)
    if link is not None and link.kind == "veth":
        return Limit(node.name, device, device, mtu, added, Larger.LOST, proof, VLAN_TAG)
    return Limit(node.name, device, device, mtu, added, Larger.UNKNOWN, proof)


def _proof(node: NodeView, link: Link | None) -> tuple[Evidence, ...]:
    if link is None:
        return cite.whole(node[q.LINKS].record)
    return cite.of(node[q.LINKS].record, link.span.head(), keep=("ifname", "mtu", "linkinfo"))
