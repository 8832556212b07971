"""The table of tasks: which question is put to which kind of place, and what needs its answer.

`path` takes the rows that its packet needs and brings of long tables only the packet's lines;
`capture` takes every row and whole tables. What each command prints, and in which forms, is the
catalogue's business (kubectl_ebpfnet/model/questions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address

from kubectl_ebpfnet.collect.batch import DEVICE_FILTERS, Asked
from kubectl_ebpfnet.model import questions as q
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.questions import Question


class Need(Enum):
    """What makes a live `path` ask."""

    ALWAYS = "every packet"
    IPV4 = "an IPv4 packet"
    IPV6 = "an IPv6 packet"
    NAME = "a destination that is a DNS name"
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

    @property
    def name(self) -> str:
        """The question's name."""
        return self.question.name if self.question else "tc-filters"


POD_TASKS: tuple[Task, ...] = (
    Task(q.POD_ADDRESSES),
    Task(q.POD_ROUTES, Need.IPV4),
    Task(q.POD_ROUTES6, Need.IPV6),
    Task(q.POD_NEIGHBOURS),
    Task(q.POD_IFLINK),
    Task(q.POD_RESOLV_CONF, Need.NAME),
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
    Task(q.TUNNELS, Need.CAPTURE),
    Task(q.METRICS, Need.CAPTURE),
)
TASKS = POD_TASKS + NODE_TASKS + CILIUM_TASKS

AGENT_LANES = 2
"""Execs among which an agent's questions are dealt out. In the lab on two cores, where commands
take 2 ms, one, two and three lanes took 0.18, 0.17 and 0.19 s for the whole run; on a real node
each of Cilium's commands starts a Go program of 0.1 to 0.2 s, and two lanes halve that."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet when places are asked about it.

    Attributes:
        addresses: of its sender: lines of long tables are kept by these; () keeps every line.
        versions: IP versions that it may have.
        by_name: the destination is a DNS name.
        leaves: the destination may be outside of the cluster.
        knows_nodes: the CiliumNode objects were read.
    """

    addresses: tuple[Address, ...] = ()
    versions: frozenset[int] = frozenset((4, 6))
    by_name: bool = False
    leaves: bool = True
    knows_nodes: bool = False

    def needs(self, need: Need) -> bool:
        """Whether this packet needs it."""
        return {
            Need.ALWAYS: True,
            Need.IPV4: 4 in self.versions,
            Need.IPV6: 6 in self.versions,
            Need.NAME: self.by_name,
            Need.LEAVES: self.leaves,
            Need.CILIUM_NODES: not self.knows_nodes,
            Need.CAPTURE: False,
        }[need]

    @property
    def needles(self) -> tuple[str, ...]:
        """The sender's addresses as commands print them: nf_conntrack prints IPv6 in full."""
        words: list[str] = []
        for address in self.addresses:
            if address.version in self.versions:
                words.append(str(address))
                if isinstance(address, IPv6Address) and address.exploded != str(address):
                    words.append(address.exploded)
        return tuple(words)


def to_ask(tasks: tuple[Task, ...], packet: Packet | None) -> list[Asked]:
    """The questions of some rows.

    Args:
        tasks: e.g. POD_TASKS.
        packet: leaves out what it does not need and keeps only its lines; None asks everything.
    """
    asked = []
    for task in tasks:
        if packet is not None and not packet.needs(task.need):
            continue
        if task.question is None:
            asked.append(DEVICE_FILTERS)
            continue
        by_flow = packet is not None and task.question.by_flow
        kept = packet.needles if packet is not None and by_flow else ()
        asked.append(Asked(task.question.forms, kept))
    return asked


def agent_lanes(packet: Packet | None) -> list[list[Asked]]:
    """What an agent is asked, in lists that are asked at the same time; Cilium's slow commands are
    dealt out first, so that each list has its share."""
    # The devices' filters are many commands: they go where the fewest others are.
    tables = [task for task in NODE_TASKS if task.question is not None]
    asked = to_ask((*CILIUM_TASKS, *tables), packet)
    lanes = [asked[lane::AGENT_LANES] for lane in range(AGENT_LANES)]
    lanes[-1] = [*lanes[-1], DEVICE_FILTERS]
    return lanes


def name_lookup(name: str) -> Asked:
    """Asks a place what a DNS name resolves to.

    getent (nsswitch.conf, glibc and musl) prints one address first on each line.
    """
    return Asked((("getent", "ahosts", name),))
