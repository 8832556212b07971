"""What a packet is, and what a reason of the kernel for a drop says, in words."""

from __future__ import annotations

from kubectl_ebpfnet.model.events import Direction, PacketEvent
from kubectl_ebpfnet.model.net import FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, protocol_name

_PSH, _ACK = 0x08, 0x10
_ECHO = {(ICMP, 8): "echo request", (ICMP, 0): "echo reply",
         (ICMPV6, 128): "echo request", (ICMPV6, 129): "echo reply"}  # fmt: skip

NO_LOSS = frozenset({"TCP_OLD_DATA", "QUEUE_PURGE", "SKB_CONSUMED", "CONSUMED"})
"""Reasons with which a buffer is freed whose data was taken, or nobody wants any more."""

REASONS = {
    "NETFILTER_DROP": "a rule of netfilter (iptables or nft) drops it",
    "TC_INGRESS": "a BPF program or filter at tc or tcx ingress drops it",
    "TC_EGRESS": "a BPF program or filter at tc or tcx egress drops it",
    "XDP": "an XDP program drops it",
    "BPF_CGROUP_EGRESS": "a BPF program of its cgroup drops it",
    "SOCKET_FILTER": "a filter of the socket drops it",
    "NO_SOCKET": "nothing listens there",
    "IP_OUTNOROUTES": "there is no route for it",
    "IP_INNOROUTES": "there is no route for it, or one that forbids it",
    "IP_RPFILTER": "rp_filter drops it: its source is not reached by the device that it came by",
    "IP_LOCAL_SOURCE": "its source is an address of this node itself",
    "IP_INVALID_SOURCE": "its source address is not valid here",
    "IP_INHDR": "its IP header is not valid",
    "IP_CSUM": "its IP checksum is wrong",
    "TCP_CSUM": "its TCP checksum is wrong",
    "UDP_CSUM": "its UDP checksum is wrong",
    "OTHERHOST": "its MAC address is not that of the device: it was meant for another one",
    "NEIGH_FAILED": "the next hop answers no ARP or neighbour solicitation",
    "NEIGH_QUEUEFULL": "it waited for the MAC of the next hop behind too many others",
    "NEIGH_DEAD": "the neighbour entry of the next hop was removed",
    "NEIGH_CREATEFAIL": "no neighbour entry can be made: the table may be full",
    "PKT_TOO_BIG": "it is larger than the MTU, and must not be fragmented",
    "QDISC_DROP": "the queue of the device drops it",
    "FULL_RING": "the queue of the device is full",
    "SOCKET_RCVBUFF": "the socket's buffer is full: the process does not read",
    "TCP_LISTEN_OVERFLOW": "the listener's queue of connections is full",
    "DEV_READY": "the device is down",
    "IFDOWN": "the device is down",
    "TCP_INVALID_SEQUENCE": "its sequence number is outside of the window",
    "TCP_RESET": "the connection was reset",
    "UNHANDLED_PROTO": "no protocol of the kernel takes it",
    "VXLAN_VNI_NOT_FOUND": "no VXLAN device has its tunnel id",
    "IP_TUNNEL_ECN": "the tunnel drops it for its congestion bits",
}
"""Names of enum skb_drop_reason (include/net/dropreason-core.h) that people meet."""


def what(event: PacketEvent) -> str:
    """Return what a packet is: `SYN`, `echo request seq 1`, `data seq 5 length 100`."""
    if event.flow is None:
        return f"no IP packet (ethertype 0x{event.ethertype:04x})"
    protocol = event.flow.protocol
    if event.icmp_error and event.icmp is not None:
        return f"ICMP error {event.icmp[0]}/{event.icmp[1]}"
    if event.icmp is not None:
        name = _ECHO.get((protocol, event.icmp[0]))
        return f"{name} seq {event.seq}" if name else f"ICMP {event.icmp[0]}/{event.icmp[1]}"
    if protocol == TCP:
        return _tcp(event)
    size = f", {event.segments} segments" if event.segments > 1 else ""
    kind = "datagram" if protocol == UDP else protocol_name(protocol)
    return f"{kind} of {event.size} bytes{size}"


def _tcp(event: PacketEvent) -> str:
    flags = event.tcp_flags
    names = [n for bit, n in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")) if flags & bit]
    if flags & _ACK and (names or not flags & _PSH):
        names.append("ACK")
    if names and names != ["ACK"]:
        return ",".join(names)
    header = 40 if event.flow and event.flow.source.version == 4 else 60
    # Without the length of options: a segment of the smallest headers and no more is an ACK.
    if names and event.size <= header + 12:
        return "ACK"
    segments = f", {event.segments} segments" if event.segments > 1 else ""
    return f"data seq {event.seq}{segments}"


def why(event: PacketEvent) -> str:
    """Return why a packet was dropped: the reason in words, its name, the function."""
    plain = REASONS.get(event.reason, "")
    name = event.reason or "no reason is told by this kernel"
    where = f" in {event.where.partition('+')[0]}" if event.where else ""
    return f"{plain} ({name}{where})" if plain else f"{name}{where}"


def is_answer(event: PacketEvent) -> bool:
    """Tell whether a packet that came back answers: no RST, no ICMP error."""
    return event.direction is Direction.BACK and not event.icmp_error and not event.tcp_flags & RST
