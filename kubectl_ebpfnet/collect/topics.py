"""The questions of each command that surveys pods or nodes."""

from __future__ import annotations

from kubectl_ebpfnet.collect.tasks import Task, Topic
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

PROGRAMS = Topic(
    pod=(Task(q.POD_ADDRESSES), Task(q.POD_NEIGHBOURS), Task(q.POD_IFLINK)),
    node=(
        Task(q.LINKS),
        Task(q.BPF_NET),
        Task(q.BPF_LINKS),
        Task(q.BPF_PROGRAMS),
        Task(q.BPF_PINS),
        Task(q.CGROUP_PROGRAMS),
        Task(q.TC_FILTERS),
    ),
    cilium=(Task(q.ENDPOINTS), Task(q.ENDPOINT_MAP)),
    pod_by_node=(Task(q.POD_LINKS), Task(q.POD_NEIGHBOURS), Task(q.ATTACHMENTS)),
    node_pod=(Task(q.LINKS), Task(q.ATTACHMENTS), Task(q.BPF_PROGRAMS), Task(q.ENDPOINT_MAP)),
)

CHECKUP = Topic(
    node=(Task(q.TOOLS),),
    cilium=(Task(q.STATUS), Task(q.VERSION)),
    node_pod=(Task(q.KERNEL),),
)
"""For `doctor`: few questions, to every node."""


def flows_of(addresses: tuple[Address, ...], peers: tuple[FlowFilter, ...]) -> Topic:
    """Return the topic of `flows`: the tables of flows.

    Args:
        addresses: of the pod. A flow is joined from every entry of the pod, so these alone filter
            the tables; () for a node, where `peers` filter.
        peers: filters for the other end.
    """
    tables = (Task(q.CT), Task(q.NAT))
    by_peer = tuple(f for f in peers if f.peer is not None or f.protocol is not None)
    return Topic(
        node=(Task(q.CONNTRACK),),
        cilium=tables,
        node_pod=(*tables, Task(q.CONNTRACK)),
        filters=tuple(FlowFilter(address=address) for address in addresses) or by_peer,
    )
