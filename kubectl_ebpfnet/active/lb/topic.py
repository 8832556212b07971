"""What probed nodes are asked: what decides about a Service there, and the flows that were sent."""

from __future__ import annotations

from kubectl_ebpfnet.collect.tasks import Task, Topic
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

_NODE = (
    Task(q.LINKS),
    Task(q.ADDRESSES),
    Task(q.ROUTES),
    Task(q.RULES),
    Task(q.NETFILTER),
    Task(q.NETFILTER6),
    Task(q.CONNTRACK),
)
_CILIUM = (Task(q.LB_MAP), Task(q.CT), Task(q.NAT))


COUNTERS = Topic(node_pod=(Task(q.COUNTERS),))
"""What is asked twice, to see what grew."""


def causes(flows: tuple[FlowFilter, ...]) -> Topic:
    """What can explain an answer, or none, to flows that were sent."""
    return Topic(
        node=(*_NODE, Task(q.BPF_NET), Task(q.BPF_LINKS), Task(q.BPF_PROGRAMS), Task(q.BPF_PINS)),
        cilium=(*_CILIUM, Task(q.STATUS), Task(q.SERVICES), Task(q.ENDPOINTS)),
        node_pod=(
            *_NODE,
            *_CILIUM,
            Task(q.ATTACHMENTS),
            Task(q.COUNTERS),
            Task(q.ENDPOINT_MAP),
        ),
        filters=flows,
    )
