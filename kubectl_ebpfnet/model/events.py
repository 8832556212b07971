"""Events: what a node tells of its packets while it is watched, one for each place of a packet.

docs/architecture.md, "Events", has who makes them and who reads them.
"""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow


class Place(StrEnum):
    """Where in the kernel a packet was seen; its tracepoint is beside (include/trace/events)."""

    QUEUE = "queue"
    """Handed to a device, behind tc egress: net_dev_queue."""
    XMIT = "xmit"
    """Behind the qdisc and software segmentation: net_dev_start_xmit."""
    NETIF_RX = "netif_rx"
    """Came out of a virtual device: netif_rx."""
    GRO = "gro"
    """Came out of a driver with NAPI: napi_gro_receive_entry."""
    RECEIVE = "receive"
    """Before generic XDP and tc ingress: netif_receive_skb."""
    DROP = "drop"
    """The buffer was thrown away: kfree_skb. Whether the packet is lost, `copies` decides with."""
    CONSUME = "consume"
    """The kernel is done with the buffer, which is no loss: consume_skb."""
    DELIVER = "deliver"
    """A process reads it from a socket: skb_copy_datagram_iovec. What udp_recvmsg copies itself has
    no such place: its CONSUME has the process."""
    PROGRAM = "program"
    """The entry program of a tc, tcx or XDP hook has ended: fexit, where the kernel has BPF
    trampolines. `program` and `verdict` say which and how."""
    KERNEL = "kernel"
    """A function of the kernel's own way, `where`: fentry, as PROGRAM."""


class Direction(StrEnum):
    """Of a packet, as it was asked for."""

    FORTH = "forth"
    BACK = "back"
    NONE = ""
    """It belongs to no flow that was asked for, but to its network namespace."""


class MatchedBy(StrEnum):
    """How a packet was known to belong to what is followed."""

    TUPLE = "tuple"
    CONNTRACK = "conntrack"
    """By the tuple that netfilter has for it before its translation."""
    LEARNED = "learned"
    """By a tuple that a packet of the flow had at an earlier place."""
    ADDRESS = "address"
    """By its buffer's address, with the same fingerprint."""
    NAMESPACE = "namespace"


class Copies(StrEnum):
    """Whether the same packet lives in another buffer: a drop of one of several is no loss."""

    NONE = "none"
    LIVES = "lives"
    LIVED = "lived"
    """There was a copy; what became of it is not known."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What carries the packet.

    Attributes:
        kind: vxlan, geneve or ipip.
        id: VNI; 0 where it has none.
        source, destination: outer addresses.
    """

    kind: str
    id: int
    source: Address
    destination: Address


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """A packet at one place.

    Attributes:
        time_ns: CLOCK_MONOTONIC of the node.
        place: where it was seen.
        netns: inode of the network namespace, 0 where the kernel does not tell.
        ifindex, device: of the device, 0 and "" where there is none.
        flow: its 5-tuple, of a tunnel's packet that of the inner one, of an ICMP error that of an
            answer to the quoted packet; None for what is no IP packet.
        direction: as it was asked for.
        matched_by: how it was known.
        fingerprint: what translation and tunnels leave as it is, as a number: the same packet has
            the same one at all places and nodes.
        seq, ack, tcp_flags: of TCP; `seq` of an ICMP echo is its number.
        icmp: type and code, None for other protocols.
        icmp_error: it quotes the packet of `flow`.
        fragment: a part of a larger packet.
        ttl: as in the header.
        size: bytes of the IP packet by its header; `length` bytes are in the buffer.
        segments: how many packets segmentation makes of it; 0 or 1: none.
        tunnel: what carries it here.
        ethertype: of the buffer.
        reason: why it was dropped, by the kernel's name; "" where this kernel does not tell (5.17).
        where: function and offset that dropped or consumed it; "" where it cannot be told (5.13).
            Of PROGRAM the hook (`tcx/ingress`, as in Attachment), of KERNEL the function.
        copies: of a drop.
        pid, command: of the process that reads it, or that sends it where that is certain.
        program, verdict: of PROGRAM: its name and id, `cil_from_netdev (id 7)`, and its answer by
            the kernel's name (`TC_ACT_OK`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`, `XDP_DROP`, …).
        data: the packet's first bytes from its IP header on, in hex; "" where none were asked for.
    """

    time_ns: int
    place: Place
    netns: int = 0
    ifindex: int = 0
    device: str = ""
    flow: Flow | None = None
    direction: Direction = Direction.NONE
    matched_by: MatchedBy = MatchedBy.NAMESPACE
    fingerprint: int = 0
    seq: int = 0
    ack: int = 0
    tcp_flags: int = 0
    icmp: tuple[int, int] | None = None
    icmp_error: bool = False
    fragment: bool = False
    ttl: int = 0
    size: int = 0
    length: int = 0
    segments: int = 0
    tunnel: Tunnel | None = None
    ethertype: int = 0
    reason: str = ""
    where: str = ""
    copies: Copies = Copies.NONE
    pid: int = 0
    command: str = ""
    program: str = ""
    verdict: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """Events that a trace lacks.

    Attributes:
        over_budget: left out in the kernel, over the budget of events a second.
        ring_full: left out in the kernel, since they were not read in time.
        not_told: read and counted on the node, over the budget of lines or faster than the client
            takes them.
    """

    over_budget: int = 0
    ring_full: int = 0
    not_told: int = 0

    @property
    def all(self) -> int:
        """How many there are."""
        return self.over_budget + self.ring_full + self.not_told


@dataclass(frozen=True, slots=True)
class NamespaceOwner:
    """Whose a network namespace is. A node tells it before the first event that names `inode`.

    Attributes:
        inode: of the network namespace.
        node: it is the node's own.
        pod_uid: of the pod whose processes are in it, by their cgroup; "" for none.
        container: id of a container there, "" for none.
        pid, command: of a process there; 0 and "" where none was found.
    """

    inode: int
    node: bool = False
    pod_uid: str = ""
    container: str = ""
    pid: int = 0
    command: str = ""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A place that is not seen on this node, and why: one line."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Layers:
    """What a node sees from now on; the first line of its answer.

    Attributes:
        attached: the places.
        lacking: what this kernel or image does not take.
        time_ns: CLOCK_MONOTONIC when all was attached.
        wall_ns: the node's wall clock at the same moment, for display alone.
    """

    attached: tuple[Place, ...]
    lacking: tuple[Lacking, ...] = ()
    time_ns: int = 0
    wall_ns: int = 0


@dataclass(frozen=True, slots=True)
class TraceLayer:
    """One object of trace's programs, tried on a node: loaded, attached, and detached at once.

    Attributes:
        name: of the object, bpf/NAME.bpf.c.
        attached: names of its programs that this kernel takes.
        lacking: those that it does not take.
    """

    name: str
    attached: tuple[str, ...]
    lacking: tuple[Lacking, ...] = ()


@dataclass(frozen=True, slots=True)
class SentPacket:
    """What became of one packet that `--send` sent, by the socket that sent it.

    Attributes:
        number: from 1 on.
        time_ns: CLOCK_MONOTONIC when it was sent.
        flow: as the socket sent it.
        outcome: `answered`, `refused`, `timeout`, or `error`.
        seconds: until the answer; None without one.
        error: the errno's words of `refused` and `error`.
    """

    number: int
    time_ns: int
    flow: Flow
    outcome: str
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of a node's answer to `trace`: exactly one member is there.

    Attributes:
        losses: counted since the beginning; the last line has them in any case.
        changed: a program was replaced or detached while it was watched: one sentence.
        end: why the node ends by itself (its time is over, it is told to end), one sentence.
    """

    packet: PacketEvent | None = None
    namespace: NamespaceOwner | None = None
    layers: Layers | None = None
    losses: Losses | None = None
    sent: SentPacket | None = None
    changed: str = ""
    end: str = ""
