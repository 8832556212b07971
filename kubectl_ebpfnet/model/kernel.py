"""Facts of a node's kernel, or of a pod's network namespace; those of BPF are in bpf.py.

Field names follow iproute2's JSON (ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8)). `span`
is where a fact stands in the record that it was read from.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network


@dataclass(frozen=True, slots=True)
class Link:
    """A network device.

    Attributes:
        index: ifindex in its own namespace.
        name: device name without the `@peer` part.
        kind: rtnl link kind (`veth`, `vxlan`, …), "" when the source does not say.
        mac: link-layer address in lower case, "" when it has none.
        up: IFF_UP is set.
        lower_up: IFF_LOWER_UP is set (carrier).
        arp: neighbours are asked on it: IFF_NOARP is not set.
        mtu: bytes, None when not said.
        peer_index: ifindex of the other end (`iflink`), None when there is none.
        peer_name: name of the other end, where it is in the same namespace.
        netns_id: nsid of the other end's namespace, None when it is this one or not said.
        netns_name: name of that namespace under /run/netns, where iproute2 knew it.
        master: name of the bridge or bond that it is enslaved to, or "".
        tunnel_port: UDP destination port of vxlan/geneve, None otherwise.
        tunnel_external: the tunnel takes its parameters from each packet (collect metadata).
        vrf_table: name of the routing table of a VRF, "" for other devices and where not said.
        xdp_program: id of an attached XDP program, None when there is none.
        qdisc: kind of its root qdisc, "" when not said.
    """

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    up: bool = True
    lower_up: bool = True
    arp: bool = True
    mtu: int | None = None
    peer_index: int | None = None
    peer_name: str = ""
    netns_id: int | None = None
    netns_name: str = ""
    master: str = ""
    tunnel_port: int | None = None
    tunnel_external: bool = False
    vrf_table: str = ""
    xdp_program: int | None = None
    qdisc: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on a device: `device`, `address`, prefix length in bits and rtnl scope name."""

    device: str
    address: Address
    prefix_length: int
    scope: str = "global"
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Route:
    """An entry of a routing table.

    Attributes:
        destination: the prefix it matches; 0.0.0.0/0 or ::/0 for the default route.
        gateway: next hop, None when the destination is on the link.
        device: outgoing device, "" for types that have none (blackhole, unreachable…).
        table: table name as iproute2 prints it (`main`, `local`, `200`).
        type: rtnl type (`unicast`, `local`, `blackhole`, `unreachable`, `prohibit`, …).
        metric: priority; the lowest wins.
        preferred_source: source address chosen for local packets, None when not said.
        scope: rtnl scope name, "" when not said.
        mtu: path MTU in bytes set on the route, None when not said.
        advmss: the segment size in bytes that TCP announces on it, None when not said.
        source: prefix the packet's source must be in (IPv6 only), None for any.
        tos: the packet's TOS as iproute2 prints it (IPv4 only), "" for any.
        weight: of one of several next hops, each of which is a Route; 0 for a single next hop.
        dead: the kernel passes this next hop over: its device is down, or has no carrier where
            `ignore_routes_with_linkdown` is set.
    """

    destination: Network
    gateway: Address | None
    device: str
    table: str = "main"
    type: str = "unicast"
    metric: int = 0
    preferred_source: Address | None = None
    scope: str = ""
    mtu: int | None = None
    advmss: int | None = None
    source: Network | None = None
    tos: str = ""
    weight: int = 0
    dead: bool = False
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of the routing policy database (ip-rule(8)).

    Attributes:
        priority: the lowest is asked first.
        source: prefix the source must be in, None for all.
        destination: prefix the destination must be in, None for all.
        mark: fwmark value, None when the rule does not look at it.
        mark_mask: mask that is applied to the packet's mark first.
        in_device: iif, "" for any.
        out_device: oif, "" for any.
        table: table looked up, "" where the action is not a look-up.
        action: `lookup`, `blackhole`, `unreachable`, `prohibit`, `goto`, `nop`, …; `l3mdev`
            looks up the table of the packet's VRF.
        inverted: `not` stands before the selector.
        protocol: IP protocol number, None for any.
        source_ports, destination_ports: lowest and highest port, () for any.
        users: lowest and highest uid of the socket's owner, () for any.
        tos: the packet's TOS as iproute2 prints it, "" for any.
        tunnel_id: of the tunnel that the packet came out of, None for any.
        suppress_prefix: a route that was found counts only if its prefix is longer, None for all.
        suppress_group: group of devices whose routes do not count, "" for none.
        other_selectors: names of what narrows the rule, or its look-up, that this model does
            not evaluate (`dscp`, `flowlabel`, masks of ports, …), sorted.
        goto: priority of the rule that `goto` jumps to, None for other actions.
        version: IP version of the packets it is for, None when the source does not say.
    """

    priority: int
    table: str
    source: Network | None = None
    destination: Network | None = None
    mark: int | None = None
    mark_mask: int = 0xFFFFFFFF
    in_device: str = ""
    out_device: str = ""
    action: str = "lookup"
    inverted: bool = False
    protocol: int | None = None
    source_ports: tuple[int, ...] = ()
    destination_ports: tuple[int, ...] = ()
    users: tuple[int, ...] = ()
    tos: str = ""
    tunnel_id: int | None = None
    suppress_prefix: int | None = None
    suppress_group: str = ""
    other_selectors: tuple[str, ...] = ()
    goto: int | None = None
    version: int | None = field(default=None, compare=False)
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour (ARP or ND) entry.

    Attributes:
        address: the neighbour's IP address.
        device: the device it is on.
        mac: its link-layer address in lower case, "" when it is not known.
        states: NUD states in upper case, e.g. ("REACHABLE",); from /proc/net/arp: ("REACHABLE",)
            for a complete entry, ("INCOMPLETE",) for one without ATF_COM.
    """

    address: Address
    device: str
    mac: str
    states: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class FibAnswer:
    """The kernel's own answer for one packet (RTM_GETROUTE, rtnetlink(7); `ip route get`).

    Attributes:
        destination: of the packet.
        source: of the packet, None when the kernel was to choose.
        in_device: the device it comes in by, "" for packets of this namespace.
        mark: its skb mark.
        protocol, source_port, destination_port: where rules look at them; None when not given.
        type: rtnl type of the route (`unicast`, `local`, …); "" when there is none.
        gateway: next hop, None when the destination is on the link.
        device: outgoing device, "" when there is none.
        preferred_source: the source that a packet of this namespace gets, None when not said.
        table: name or number as iproute2 prints it, "" when not said.
        mtu: bytes, None when not said.
        error: why there is no route (errno in words), "" when there is one.
    """

    destination: Address
    source: Address | None = None
    in_device: str = ""
    mark: int = 0
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    type: str = ""
    gateway: Address | None = None
    device: str = ""
    preferred_source: Address | None = None
    table: str = ""
    mtu: int | None = None
    error: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queueing discipline of a device (tc(8)), with its counters since it was made.

    Attributes:
        device: device name.
        kind: `fq_codel`, `tbf`, `netem`, `clsact`, …
        root: the whole device's; else of a class, or of a queue.
        packets: that were sent on.
        drops: that it dropped.
        waiting: packets in it now.
        rate: bytes a second that it lets pass, None where it does not say, or sets no limit.
        loss: part of the packets that netem drops on purpose, 0 to 1.
    """

    device: str
    kind: str
    root: bool = True
    packets: int = 0
    drops: int = 0
    waiting: int = 0
    rate: int | None = None
    loss: float = 0.0
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of the kernel that can explain a drop, since boot or since the device was made.

    Attributes:
        group: `device` (rtnl_link_stats64), `snmp`, `netstat` (/proc/net/snmp, netstat),
            `softnet` (/proc/net/softnet_stat, summed over the CPUs), `conntrack`
            (nf_conntrack's count, max and /proc/net/stat/nf_conntrack), `xfrm`
            (/proc/net/xfrm_stat).
        name: as the kernel names it, e.g. `rx_dropped`, `Ip.InDiscards`, `TcpExt.ListenDrops`.
        value: the number.
        device: for `device`, else "".
    """

    group: str
    name: str
    value: int
    device: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes the first packet of a sender: TCP in the state LISTEN, or UDP.

    Attributes:
        address: that it is bound to; 0.0.0.0 or :: for any. An IPv6 socket that is bound to an
            IPv4-mapped address has the IPv4 address.
        port: that it is bound to.
        v6_only: an IPv6 socket takes no IPv4 packets (IPV6_V6ONLY); None where that is not known.
        device: that it is bound to (SO_BINDTODEVICE), "" for any; /proc does not tell.
        waiting: connections that wait for accept().
        backlog: most of them by listen(2); None where that is not known, and for UDP.
        peer, peer_port: the only sender that a connected UDP socket takes packets of; None for any.
    """

    address: Address
    port: int
    v6_only: bool | None = None
    device: str = ""
    waiting: int = 0
    backlog: int | None = None
    peer: Address | None = None
    peer_port: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A number below /proc/sys.

    Attributes:
        name: path below /proc/sys, since a device's name may have dots:
            `net/ipv4/conf/eth0/rp_filter`.
        value: the number.
    """

    name: str
    value: int
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What this node's kernel is and what it can do for the node side.

    Attributes:
        release: uname -r.
        machine: uname -m.
        boot_seconds: CLOCK_BOOTTIME, seconds since boot.
        monotonic_seconds: CLOCK_MONOTONIC, the clock of Cilium's maps in `ktime` mode.
        bpf_stats: kernel.bpf_stats_enabled is on, None when it cannot be read.
        bpffs: where a bpffs is mounted, "" for nowhere.
        cgroup2: where the cgroup v2 hierarchy is mounted, "" for nowhere.
        cilium_maps: names of Cilium's pinned maps.
        capabilities: effective ones of the node side, e.g. `CAP_NET_ADMIN`, sorted.
        problems: one sentence for each thing that it cannot do here.
    """

    release: str
    machine: str = ""
    boot_seconds: float | None = None
    monotonic_seconds: float | None = None
    bpf_stats: bool | None = None
    bpffs: str = ""
    cgroup2: str = ""
    cilium_maps: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)
