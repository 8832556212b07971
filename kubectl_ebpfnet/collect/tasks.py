"""The table of tasks: which question goes to which kind of place, and which packets need it.

`path` asks the rows that its packet needs, and fetches only the packet's lines of long tables;
`capture` asks every row and fetches whole tables. The forms of a question and their output are in
model/catalogue.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import Fact
from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace


class Need(Enum):
    """The condition under which a live `path` asks a question."""

    ALWAYS = "every packet"
    IPV4 = "an IPv4 packet"
    IPV6 = "an IPv6 packet"
    LEAVES = "a destination that may be outside of the cluster"
    CILIUM_NODES = "CiliumNode objects that could not be read"
    CAPTURE = "a capture alone"


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the table.

    Attributes:
        question: the row of the catalogue.
        need: the packets that need the answer.
    """

    question: Fact[Any]
    need: Need = Need.ALWAYS


POD_TASKS: tuple[Task, ...] = (
    Task(q.POD_ADDRESSES),
    Task(q.POD_ROUTES, Need.IPV4),
    Task(q.POD_ROUTES6, Need.IPV6),
    Task(q.POD_NEIGHBOURS),
    Task(q.POD_IFLINK),
)
NODE_TASKS: tuple[Task, ...] = (
    Task(q.LINKS),
    Task(q.ADDRESSES),
    Task(q.ROUTES),
    Task(q.RULES),
    Task(q.NEIGHBOURS),
    Task(q.NETFILTER, Need.IPV4),
    Task(q.NETFILTER6, Need.IPV6),
    Task(q.CONNTRACK),
    Task(q.BPF_NET),
    Task(q.BPF_LINKS),
    Task(q.BPF_PROGRAMS),
    Task(q.BPF_PINS),
    Task(q.TC_FILTERS),
    Task(q.CGROUP_PROGRAMS, Need.CAPTURE),
)
CILIUM_TASKS: tuple[Task, ...] = (
    Task(q.STATUS),
    Task(q.CT),
    Task(q.ENDPOINTS),
    Task(q.POLICY_MAPS),
    Task(q.NAT),
    Task(q.SERVICES),
    Task(q.IPCACHE),
    Task(q.ENDPOINT_MAP),
    Task(q.LB_MAP),
    Task(q.IDENTITIES),
    Task(q.EGRESS_GATEWAY, Need.LEAVES),
    Task(q.IP_MASQ, Need.LEAVES),
    Task(q.CILIUM_NODES, Need.CILIUM_NODES),
    Task(q.VERSION, Need.CAPTURE),
    Task(q.METRICS, Need.CAPTURE),
)

# Rows for a node pod: answers of the node side, and of the node's own programs.
POD_BY_NODE_TASKS: tuple[Task, ...] = (
    Task(q.POD_LINKS),
    Task(q.POD_ADDRESSES),
    Task(q.POD_ROUTES),
    Task(q.POD_NEIGHBOURS),
    Task(q.ATTACHMENTS, Need.CAPTURE),
)
NODE_POD_TASKS: tuple[Task, ...] = (
    Task(q.LINKS),
    Task(q.ADDRESSES),
    Task(q.ROUTES),
    Task(q.RULES),
    Task(q.NEIGHBOURS),
    Task(q.NETFILTER, Need.IPV4),
    Task(q.NETFILTER6, Need.IPV6),
    Task(q.ATTACHMENTS),
    Task(q.CONNTRACK),
    Task(q.CT),
    Task(q.NAT),
    Task(q.LB_MAP),
    Task(q.IPCACHE),
    Task(q.ENDPOINT_MAP),
    Task(q.POLICY_MAPS),
    Task(q.EGRESS_GATEWAY, Need.LEAVES),
    Task(q.IP_MASQ, Need.LEAVES),
    Task(q.KERNEL, Need.CAPTURE),
    Task(q.COUNTERS),
    Task(q.BPF_PROGRAMS, Need.CAPTURE),
    Task(q.BPF_PINS, Need.CAPTURE),
    Task(q.METRICS, Need.CAPTURE),
)


@dataclass(frozen=True, slots=True)
class PacketHints:
    """Facts about a packet that narrow the questions.

    Attributes:
        addresses: of the sender; they filter the lines of long tables. () keeps every line.
        versions: possible IP versions of the packet.
        by_name: the destination is a DNS name.
        leaves: the destination may be outside of the cluster.
        knows_nodes: the CiliumNode objects were read.
        destinations: possible destination addresses, before and after load-balancing.
    """

    addresses: tuple[Address, ...] = ()
    versions: frozenset[int] = frozenset((4, 6))
    by_name: bool = False
    leaves: bool = True
    knows_nodes: bool = False
    destinations: tuple[Address, ...] = ()

    def needs(self, need: Need) -> bool:
        """Tell whether this packet needs the rows with a need."""
        return {
            Need.ALWAYS: True,
            Need.IPV4: 4 in self.versions,
            Need.IPV6: 6 in self.versions,
            Need.LEAVES: self.leaves,
            Need.CILIUM_NODES: not self.knows_nodes,
            Need.CAPTURE: False,
        }[need]

    @property
    def filters(self) -> tuple[FlowFilter, ...]:
        """The sender's addresses, as filters of the node side."""
        addresses = (a for a in self.addresses if a.version in self.versions)
        return tuple(FlowFilter(address=address) for address in addresses)


@dataclass(frozen=True, slots=True)
class Topic:
    """The rows that a command asks.

    Attributes:
        pod: rows for a container of a pod.
        node, cilium: rows for an agent.
        pod_by_node, node_pod: rows for a node pod, about a pod and about the node.
        filters: select entries of tables that grow with traffic; () selects all.
        packet: selects the rows that a packet needs; None selects all.
    """

    pod: tuple[Task, ...] = ()
    node: tuple[Task, ...] = ()
    cilium: tuple[Task, ...] = ()
    pod_by_node: tuple[Task, ...] = ()
    node_pod: tuple[Task, ...] = ()
    filters: tuple[FlowFilter, ...] = ()
    packet: PacketHints | None = None


EVERYTHING = Topic(POD_TASKS, NODE_TASKS, CILIUM_TASKS, POD_BY_NODE_TASKS, NODE_POD_TASKS)
"""The rows of a capture."""


def topic_of(packet: PacketHints) -> Topic:
    """Return the topic of a live `path`."""
    return replace(EVERYTHING, filters=packet.filters, packet=packet)


def questions(
    rows: Iterable[Task], topic: Topic, place: Place, netns: PodNamespace | None = None
) -> list[Question]:
    """Return the questions of some rows.

    Args:
        rows: of the topic, for the kind of answerer.
        topic: selects rows, and filters tables that grow with traffic.
        place: the place of the records.
        netns: the pod's network namespace, for a node pod; None for the node's own.
    """
    packet = topic.packet
    return [
        Question(row.question, place, netns, topic.filters if row.question.by_flow else ())
        for row in rows
        if packet is None or packet.needs(row.need)
    ]


MOST_LOOKUPS = 8
"""How many destinations to look up; a Service may have hundreds of backends."""


def route_lookups(
    packet: PacketHints, pod: Place, node: Place, netns: PodNamespace
) -> list[Question]:
    """Return questions for the kernel's routing decision, in the pod and on its node.

    Args:
        packet: its addresses and destinations.
        pod, node: the places of the records.
        netns: the pod's network namespace.
    """
    found = []
    for destination in packet.destinations[:MOST_LOOKUPS]:
        for source in packet.addresses:
            if source.version == destination.version:
                words = q.packet_words(source, destination)
                found.append(Question(q.FIB, pod, netns, words=words))
                found.append(Question(q.FORWARD, node, netns, words=words))
    return found
