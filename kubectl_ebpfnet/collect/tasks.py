"""The table of tasks: which question is put to which kind of place, and what needs its answer.

`path` takes the rows that its packet needs and brings of long tables only the packet's lines;
`capture` takes every row and whole tables. What each command prints, and in which forms, is the
catalogue's business (kubectl_ebpfnet/model/catalogue.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address

from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion
from kubectl_ebpfnet.collect.ask.shell_script import DEVICE_FILTERS, ShellQuestion
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import Question
from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import (
    HOST_PROGRAMS,
    PROGRAM,
    FlowFilter,
    PodNamespace,
    ask,
)


class Need(Enum):
    """What makes a live `path` ask."""

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
        question: what is asked; None for tc's filters of every device, whose names nobody knows
            before.
        need: what needs the answer.
    """

    question: Question | None
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

# The same of a node pod: what the node side answers itself, and the node's own programs.
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
"""Execs among which an agent's questions are dealt out. In the lab on two cores, where commands
take 2 ms, one, two and three lanes took 0.18, 0.17 and 0.19 s for the whole run; on a real node
each of Cilium's commands starts a Go program of 0.1 to 0.2 s, and two lanes halve that."""


@dataclass(frozen=True, slots=True)
class PacketHints:
    """What is known of a packet when places are asked about it.

    Attributes:
        addresses: of its sender: lines of long tables are kept by these; () keeps every line.
        versions: IP versions that it may have.
        by_name: the destination is a DNS name.
        leaves: the destination may be outside of the cluster.
        knows_nodes: the CiliumNode objects were read.
        destinations: addresses that it may go to, before and after load-balancing.
    """

    addresses: tuple[Address, ...] = ()
    versions: frozenset[int] = frozenset((4, 6))
    by_name: bool = False
    leaves: bool = True
    knows_nodes: bool = False
    destinations: tuple[Address, ...] = ()

    def needs(self, need: Need) -> bool:
        """Whether this packet needs it."""
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
        """The sender's addresses, as the node side looks for them."""
        wanted = (address for address in self.addresses if address.version in self.versions)
        return tuple(FlowFilter(address=address) for address in wanted)

    @property
    def needles(self) -> tuple[str, ...]:
        """The sender's addresses as commands print them: nf_conntrack prints IPv6 in full."""
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
    """What a command wants of every place that it asks, whatever packets pass there.

    Attributes:
        pod, node, cilium: rows for a pod's container, and for an agent.
        pod_by_node, node_pod: rows for a node pod.
        filters: entries of tables that grow with traffic that are wanted; () for all.
    """

    pod: tuple[Task, ...] = ()
    node: tuple[Task, ...] = ()
    cilium: tuple[Task, ...] = ()
    pod_by_node: tuple[Task, ...] = ()
    node_pod: tuple[Task, ...] = ()
    filters: tuple[FlowFilter, ...] = ()

    def needs(self, need: Need) -> bool:
        """Every row of it is needed."""
        return need in Need

    @property
    def needles(self) -> tuple[str, ...]:
        """Addresses that lines must have, as commands print them; none where a filter has none."""
        ends = [flow.address or flow.peer for flow in self.filters]
        return () if None in ends else _as_printed(end for end in ends if end is not None)


EVERYTHING = Topic(POD_TASKS, NODE_TASKS, CILIUM_TASKS, POD_BY_NODE_TASKS, NODE_POD_TASKS)
"""What a capture takes."""


def shell_questions(tasks: tuple[Task, ...], wanted: PacketHints | Topic) -> list[ShellQuestion]:
    """The questions of some rows.

    Args:
        tasks: e.g. POD_TASKS.
        wanted: leaves out what it does not need, and keeps only its lines of long tables.
    """
    asked = []
    for task in tasks:
        if not wanted.needs(task.need):
            continue
        if task.question is None:
            asked.append(DEVICE_FILTERS)
        elif task.question.forms:
            kept = wanted.needles if task.question.by_flow else ()
            asked.append(ShellQuestion(task.question.forms, kept))
    return asked


def node_pod_questions(
    tasks: tuple[Task, ...],
    wanted: PacketHints | Topic,
    place: Place,
    netns: PodNamespace | None = None,
) -> list[NodeQuestion]:
    """The questions of some rows, as a node pod is asked them.

    Args:
        tasks: e.g. NODE_POD_TASKS.
        wanted: as for `shell_questions`.
        place: whose answers they are.
        netns: the pod's namespace, None for the node's own.
    """
    asked = []
    for task in tasks:
        question = task.question
        if question is None or not wanted.needs(task.need):
            continue
        argv = question.answers[0]
        if argv[0] == PROGRAM or argv in HOST_PROGRAMS:
            flows = wanted.filters if question.by_flow else ()
            asked.append(NodeQuestion(place, argv, netns, flows))
    return asked


def agent_lanes(wanted: PacketHints | Topic) -> list[list[ShellQuestion]]:
    """What an agent is asked, in lists that are asked at the same time; Cilium's slow commands are
    dealt out first, so that each list has its share."""
    rows = (wanted.cilium, wanted.node) if isinstance(wanted, Topic) else (CILIUM_TASKS, NODE_TASKS)
    asked = shell_questions((*rows[0], *rows[1]), wanted)
    # The devices' filters are many commands: they go where the fewest others are.
    tables = [one for one in asked if one is not DEVICE_FILTERS]
    lanes = [tables[lane::AGENT_LANES] for lane in range(AGENT_LANES)]
    if len(tables) < len(asked):
        lanes[-1] = [*lanes[-1], DEVICE_FILTERS]
    return [lane for lane in lanes if lane]


MOST_LOOKUPS = 8
"""Destinations that the kernel is asked for; a Service may have hundreds of backends."""


def route_lookups(
    packet: PacketHints, pod: Place, node: Place, netns: PodNamespace
) -> list[NodeQuestion]:
    """The kernel's own routing decisions for a packet, in the pod and on its node."""
    asked = []
    for destination in packet.destinations[:MOST_LOOKUPS]:
        for source in packet.addresses:
            if source.version == destination.version:
                words = q.packet_words(source, destination)
                asked.append(NodeQuestion(pod, ask("fib", *words), netns))
                asked.append(NodeQuestion(node, ask("forward", *words), netns))
    return asked


def name_lookup(name: str) -> ShellQuestion:
    """Asks a place what a DNS name resolves to.

    getent (nsswitch.conf, glibc and musl) prints one address first on each line.
    """
    return ShellQuestion((("getent", "ahosts", name),))
