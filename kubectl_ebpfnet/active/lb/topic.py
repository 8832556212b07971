"""The questions to probed nodes: the facts that decide about a Service, and the probes' flows."""

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
"""Asked before and after the attempts, to see which counters grew."""


def causes_topic(flows: tuple[FlowFilter, ...]) -> Topic:
    """Return the topic of the facts that can explain the fate of some flows."""
    return Topic(
        node=(*_NODE, Task(q.BPF_NET), Task(q.BPF_LINKS), Task(q.BPF_PROGRAMS), Task(q.BPF_PINS)),
        cilium=(*_CILIUM, Task(q.STATUS), Task(q.SERVICES), Task(q.ENDPOINTS)),
        node_pod=(*_NODE, *_CILIUM, Task(q.ATTACHMENTS), Task(q.COUNTERS), Task(q.ENDPOINT_MAP)),
        filters=flows,
    )
