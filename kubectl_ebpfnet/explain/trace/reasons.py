"""What the kernel's reasons for drops say, in words, and where to look.

Source: enum skb_drop_reason in include/net/dropreason-core.h, and the functions that give them.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import PacketEvent, Place
from kubectl_ebpfnet.model.path import HopKind

_PROGRAMS = frozenset({
    HopKind.PROGRAM, HopKind.POLICY, HopKind.LOAD_BALANCING, HopKind.CONNTRACK, HopKind.NAT,
    HopKind.TUNNEL,
})  # fmt: skip
"""What Cilium's programs do: a drop of theirs is one by tc or XDP."""
_RULES, _ROUTES = frozenset({HopKind.RULE}), frozenset({HopKind.ROUTE})
_NEIGHBOURS, _LINKS = frozenset({HopKind.NEIGHBOUR}), frozenset({HopKind.LINK})
_SOCKETS = frozenset({HopKind.SOCKET, HopKind.DELIVERY})


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for a drop.

    Attributes:
        text: what it says, no more.
        look: what to look at there, a sentence; "" for nothing in particular.
        hops: kinds of path's hops that drop so.
        final: it comes before any socket: what a tap has read of the packet is no delivery.
    """

    text: str
    look: str = ""
    hops: frozenset[HopKind] = frozenset()
    final: bool = False


_PROGRAM_LOOK = (
    "`kubectl ebpfnet programs` shows the programs of the device; `cilium monitor` Cilium's own"
)
_ROUTE_LOOK = "look at `ip rule` and `ip route get` there"
_NEIGHBOUR_LOOK = "look at `ip neigh` there, and whether the next hop is up and in this segment"
NO_ROUTE = Reason("there is no route for it, or one that forbids it", _ROUTE_LOOK, _ROUTES, True)
_XDP = Reason("an XDP program drops it", _PROGRAM_LOOK, _PROGRAMS, True)
_RULE = Reason(
    "a rule of netfilter (iptables or nft) drops it",
    "look at the counters of `nft list ruleset` and `iptables-save -c` there",
    _RULES, True,
)  # fmt: skip

REASONS = {
    "NETFILTER_DROP": _RULE,
    "TC_INGRESS": Reason("a BPF program or filter at tc or tcx ingress drops it",
                         _PROGRAM_LOOK, _PROGRAMS, True),
    "TC_EGRESS": Reason("a BPF program or filter at tc or tcx egress drops it",
                        _PROGRAM_LOOK, _PROGRAMS, True),
    "XDP": _XDP,
    "BPF_CGROUP_EGRESS": Reason("a BPF program of its cgroup drops it", "", _PROGRAMS, True),
    "SOCKET_FILTER": Reason("a filter of the socket drops it"),
    "NO_SOCKET": Reason("nothing listens there", "look at `ss -lntu` there", _SOCKETS),
    "IP_OUTNOROUTES": Reason("there is no route for it", _ROUTE_LOOK, _ROUTES, True),
    "IP_INNOROUTES": NO_ROUTE,
    "IP_RPFILTER": Reason(
        "rp_filter drops it: its source is not reached by the device that it came by",
        "look at net.ipv4.conf.*.rp_filter, and at the route to its source", _ROUTES, True),
    "IP_LOCAL_SOURCE": Reason("its source is an address of this node itself", "", _ROUTES, True),
    "IP_INVALID_SOURCE": Reason("its source address is not valid here", "", _ROUTES, True),
    "IP_INHDR": Reason("its IP header is not valid", "", frozenset(), True),
    "IP_CSUM": Reason("its IP checksum is wrong", "", frozenset(), True),
    "TCP_CSUM": Reason("its TCP checksum is wrong", "look at checksum offload (`ethtool -k`)"),
    "UDP_CSUM": Reason("its UDP checksum is wrong", "look at checksum offload (`ethtool -k`)"),
    "OTHERHOST": Reason(
        "its MAC address is not that of the device: it was meant for another one",
        "look at `ip neigh` where it was sent, against `ip link` here", _NEIGHBOURS),
    "NEIGH_FAILED": Reason("the next hop answers no ARP or neighbour solicitation",
                           _NEIGHBOUR_LOOK, _NEIGHBOURS, True),
    "NEIGH_QUEUEFULL": Reason("it waited for the MAC of the next hop behind too many others",
                              _NEIGHBOUR_LOOK, _NEIGHBOURS, True),
    "NEIGH_DEAD": Reason("the neighbour entry of the next hop was removed",
                         _NEIGHBOUR_LOOK, _NEIGHBOURS, True),
    "NEIGH_CREATEFAIL": Reason("no neighbour entry can be made: the table may be full",
                               "look at net.ipv4.neigh.default.gc_thresh3", _NEIGHBOURS, True),
    "PKT_TOO_BIG": Reason("it is larger than the MTU, and must not be fragmented",
                          "look at the MTU of the device and route that it takes there",
                          _LINKS | _ROUTES, True),
    "QDISC_DROP": Reason("the queue of the device drops it", "look at `tc -s qdisc` there",
                         _LINKS, True),
    "FULL_RING": Reason("the queue of the device is full", "", _LINKS, True),
    "CPU_BACKLOG": Reason("the backlog of a CPU is full", "look at net.core.netdev_max_backlog",
                          _LINKS, True),
    "DEV_READY": Reason("the device is down", "look at `ip link` there", _LINKS, True),
    "IFDOWN": Reason("the device is down", "look at `ip link` there", _LINKS, True),
    "SOCKET_RCVBUFF": Reason("the socket's buffer is full: the process does not read in time"),
    "TCP_LISTEN_OVERFLOW": Reason("the listener's queue of connections is full",
                                  "look at `ss -lnt`: Recv-Q against Send-Q"),
    "TCP_INVALID_SEQUENCE": Reason("its sequence number is outside of the window"),
    "TCP_RESET": Reason("the connection was reset"),
    "TCP_OVERWINDOW": Reason("it is beyond the window that the receiver offered"),
    "UNHANDLED_PROTO": Reason("no protocol of the kernel takes it"),
    "VXLAN_VNI_NOT_FOUND": Reason("no VXLAN device has its tunnel id"),
    "IP_TUNNEL_ECN": Reason("the tunnel drops it for its congestion bits"),
}  # fmt: skip
_FUNCTIONS = {
    "nft_do_chain": _RULE,
    "nf_hook_slow": _RULE,
    "ip_error": NO_ROUTE,
    "do_xdp_generic": _XDP,
    "netif_receive_generic_xdp": _XDP,
    "neigh_invalidate": REASONS["NEIGH_FAILED"],
    "arp_error_report": REASONS["NEIGH_FAILED"],
}
"""Functions that drop for one reason alone, for kernels that tell none."""


DROP_VERDICTS = frozenset({"TC_ACT_SHOT", "XDP_DROP", "XDP_ABORTED"})
"""Answers of programs with which the kernel drops the packet."""
_BY_PROGRAM = Reason("a BPF program drops it", _PROGRAM_LOOK, _PROGRAMS, True)


def by_verdict(event: PacketEvent) -> bool:
    """Tell whether it is a program's answer that drops the packet."""
    return event.place is Place.PROGRAM and event.verdict in DROP_VERDICTS


def may_be_of_program(drop: PacketEvent) -> bool:
    """Tell whether a drop of the kernel may be what a program answered: by its reason, or since
    this kernel tells none."""
    found = of(drop)
    return found.hops is _PROGRAMS or (not found.text and drop.reason in ("", "NOT_SPECIFIED"))


def of(event: PacketEvent) -> Reason:
    """Return what a drop's reason says; an empty one where it says nothing that is known."""
    if by_verdict(event):
        return _BY_PROGRAM
    found = REASONS.get(event.reason)
    if found is None and event.reason in ("", "NOT_SPECIFIED"):
        function = event.where.partition("+")[0].partition(".")[0]
        found = _FUNCTIONS.get(function)
    return found or Reason("")
