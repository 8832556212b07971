"""What a client asks of a node that is to watch packets, and how the node answers: the contract of
`trace`.

    exec: ebpfnet-node trace REQUEST      REQUEST is a TraceRequest as JSON
    stdin   ← one word a line: GO (send what `send` says); its end: stop, and say the rest
    stdout  → one TraceLine (model/events.py) a line, as codec.line_of writes it: first the layers,
              when all is attached; then what is seen; last the losses and, of `send`, the summary
    stderr    framed (frames.py), as netkat's: text for a person

The lines of stdout are the node's record (catalogue.TRACE), so a capture holds them and explain
reads them as it reads any other answer of the node side.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import PodNamespace

GO = "go"
"""The word on stdin that starts `send`: every node of the trace has attached its programs."""
MOST_FILTERS = 16
MOST_DATA = 256
"""Bytes of a packet that an event may hold."""


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """Packets between two ends, in both directions; whatever is None is any.

    Attributes:
        source, source_port: of the packet that goes forth; for ICMP echo the port is its id.
        destination, destination_port: of the same.
        protocol: IANA number; 0 is any.
    """

    source: Address | None = None
    destination: Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Packets to send from a network namespace, by a real socket.

    Attributes:
        protocol: ICMP, ICMPV6 (echo), TCP (connect) or UDP.
        destination: where to.
        port: of TCP and UDP.
        count: how many.
        interval: seconds between two.
        size: bytes of data of an echo or of UDP without `payload`.
        payload: of UDP, as text.
        timeout: seconds to wait for an answer to each.
        source_port: 0 for any.
    """

    protocol: int
    destination: Address
    port: int | None = None
    count: int = 1
    interval: float = 1.0
    size: int = 56
    payload: str = ""
    timeout: float = 2.0
    source_port: int = 0


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What a node is to watch.

    Attributes:
        filters: at most MOST_FILTERS; a packet that one of them selects is followed.
        pod: everything in this network namespace is told; None for none.
        pid: the same by a process, 0 for none.
        node_namespace: everything in the node's own network namespace is told.
        drops_only: tell of drops alone.
        events_per_second: of what is told; the rest is counted (Losses).
        seconds: end by itself after so long; a bound, whatever becomes of the client.
        data: bytes of each packet to tell, from its IP header on, at most MOST_DATA; 0 for none.
        vxlan_ports, geneve_ports: UDP ports of tunnels, two each at most.
        send: what to send from the namespace of `sender`; None to watch alone.
        sender: the namespace; None for the node's own, or that of `sender_pid`.
        sender_pid: a process in whose namespace to send, 0 for none; filters without a source get
            the addresses of that.
        pods: by whose containers a namespace is known to be a pod's, where the path of its cgroup
            lacks the pod's uid (a kubelet without cgroupsPerQOS).
    """

    filters: tuple[PacketFilter, ...] = ()
    pod: PodNamespace | None = None
    pid: int = 0
    node_namespace: bool = False
    drops_only: bool = False
    events_per_second: int = 2_000
    seconds: float = 600.0
    data: int = 0
    vxlan_ports: tuple[int, ...] = (8472, 4789)
    geneve_ports: tuple[int, ...] = (6081,)
    send: SendRequest | None = None
    sender: PodNamespace | None = None
    sender_pid: int = 0
    pods: tuple[PodNamespace, ...] = ()


@dataclass(frozen=True, slots=True)
class MonitorQuestion:
    """What the monitor of Cilium's agent is to tell.

    Attributes:
        words: `monitor -j …`.
        needles: strings of which a line must have one; no newline in them.
    """

    words: tuple[str, ...]
    needles: tuple[str, ...]
