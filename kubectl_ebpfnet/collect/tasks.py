"""The table of tasks: which question goes to which kind of place, and which packets need it.

`path` asks the rows that its packet needs, and fetches only the packet's lines of long tables;
`capture` asks every row and fetches whole tables. The forms of a question and their output are in
model/catalogue.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address
from typing import Any

from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion
from kubectl_ebpfnet.collect.ask.shell_script import DEVICE_FILTERS, ShellQuestion
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import Fact
from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import (
    HOST_PROGRAMS,
    PROGRAM,
    FlowFilter,
    PodNamespace,
    node_argv,
)


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
        question: the question; None for tc's filters of every device, whose names are unknown
            until the script runs.
        need: the packets that need the answer.
    """

    question: Fact[Any] | None
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
    Task(None),
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

AGENT_LANES = 2
"""Number of execs that share an agent's questions. In the lab on two cores, where commands
take 2 ms, one, two and three lanes took 0.18, 0.17 and 0.19 s for the whole run; on a real node
each of Cilium's commands starts a Go program of 0.1 to 0.2 s, and two lanes halve that."""


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

    @property
    def needles(self) -> tuple[str, ...]:
        """The sender's addresses as commands print them; nf_conntrack prints IPv6 in full."""
        return _as_printed(a for a in self.addresses if a.version in self.versions)


def _as_printed(addresses: Iterable[Address]) -> tuple[str, ...]:
    words: list[str] = []
    for address in addresses:
        words.append(str(address))
        if isinstance(address, IPv6Address) and address.exploded != str(address):
            words.append(address.exploded)
    return tuple(words)


@dataclass(frozen=True, slots=True)
class Topic:
    """The rows that a command asks, independent of any packet.

    Attributes:
        pod: rows for a container of a pod.
        node, cilium: rows for an agent.
        pod_by_node, node_pod: rows for a node pod, about a pod and about the node.
        filters: select entries of tables that grow with traffic; () selects all.
    """

    pod: tuple[Task, ...] = ()
    node: tuple[Task, ...] = ()
    cilium: tuple[Task, ...] = ()
    pod_by_node: tuple[Task, ...] = ()
    node_pod: tuple[Task, ...] = ()
    filters: tuple[FlowFilter, ...] = ()

    def needs(self, need: Need) -> bool:
        """Tell whether a need counts: every one does."""
        return need in Need

    @property
    def needles(self) -> tuple[str, ...]:
        """Addresses to filter lines by, as commands print them; () if a filter has no address."""
        ends = [flow.address or flow.peer for flow in self.filters]
        return () if None in ends else _as_printed(end for end in ends if end is not None)


EVERYTHING = Topic(POD_TASKS, NODE_TASKS, CILIUM_TASKS, POD_BY_NODE_TASKS, NODE_POD_TASKS)
"""The rows of a capture."""


def shell_questions(tasks: tuple[Task, ...], scope: PacketHints | Topic) -> list[ShellQuestion]:
    """Return the questions of some rows, for a container.

    Args:
        tasks: e.g. POD_TASKS.
        scope: selects the rows that it needs, and filters the lines of long tables.
    """
    questions = []
    for task in tasks:
        if not scope.needs(task.need):
            continue
        if task.question is None:
            questions.append(DEVICE_FILTERS)
        elif task.question.forms:
            line_filter = scope.needles if task.question.by_flow else ()
            questions.append(ShellQuestion(task.question.forms, line_filter))
    return questions


def node_pod_questions(
    tasks: tuple[Task, ...],
    scope: PacketHints | Topic,
    place: Place,
    netns: PodNamespace | None = None,
) -> list[NodeQuestion]:
    """Return the questions of some rows, for a node pod.

    Args:
        tasks: e.g. NODE_POD_TASKS.
        scope: as for `shell_questions`.
        place: the place of the records.
        netns: the pod's network namespace, None for the node's own.
    """
    questions = []
    for task in tasks:
        question = task.question
        if question is None or not scope.needs(task.need):
            continue
        argv = question.answers[0]
        if argv[0] == PROGRAM or argv in HOST_PROGRAMS:
            flows = scope.filters if question.by_flow else ()
            questions.append(NodeQuestion(place, argv, netns, flows))
    return questions


def agent_lanes(scope: PacketHints | Topic) -> list[list[ShellQuestion]]:
    """Return an agent's questions as lists to ask at the same time. Cilium's slow commands are
    dealt out first, so that each list has its share."""
    rows = (scope.cilium, scope.node) if isinstance(scope, Topic) else (CILIUM_TASKS, NODE_TASKS)
    questions = shell_questions((*rows[0], *rows[1]), scope)
    # The devices' filters are many commands: the last lane has the fewest others.
    tables = [question for question in questions if question is not DEVICE_FILTERS]
    lanes = [tables[lane::AGENT_LANES] for lane in range(AGENT_LANES)]
    if len(tables) < len(questions):
        lanes[-1] = [*lanes[-1], DEVICE_FILTERS]
    return [lane for lane in lanes if lane]


MOST_LOOKUPS = 8
"""How many destinations to look up; a Service may have hundreds of backends."""


def route_lookups(
    packet: PacketHints, pod: Place, node: Place, netns: PodNamespace
) -> list[NodeQuestion]:
    """Return questions for the kernel's routing decision, in the pod and on its node.

    Args:
        packet: its addresses and destinations.
        pod, node: the places of the records.
        netns: the pod's network namespace.
    """
    questions = []
    for destination in packet.destinations[:MOST_LOOKUPS]:
        for source in packet.addresses:
            if source.version == destination.version:
                words = q.packet_words(source, destination)
                questions.append(NodeQuestion(pod, node_argv("fib", *words), netns))
                questions.append(NodeQuestion(node, node_argv("forward", *words), netns))
    return questions


def name_lookup(name: str) -> ShellQuestion:
    """Return the question that resolves a DNS name.

    getent (nsswitch.conf, glibc and musl) prints one address first on each line.
    """
    return ShellQuestion((("getent", "ahosts", name),))
