"""What can be asked of the node side, and which function answers it.

A function takes the request and gives facts of the class that
kubectl_ebpfnet/model/protocol/questions.py names for it. It runs inside the network namespace that
was asked for, and may raise KernelError; its module is imported when it is asked for, since most
requests need few of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from kubectl_ebpfnet.model.protocol.questions import NodeRequest

Answers = Callable[[NodeRequest], Iterable[Any]]

_HERE = "kubectl_ebpfnet.node"
ASKS = {
    "links": "netlink.tables:links",
    "addresses": "netlink.tables:addresses",
    "routes": "netlink.tables:routes",
    "rules": "netlink.tables:rules",
    "neighbours": "netlink.tables:neighbours",
    "fib": "netlink.tables:fib",
    "forward": "netlink.forward:forward",
    "attachments": "bpf.attachments:attachments",
    "counters": "counters:counters",
    "conntrack": "netlink.conntrack:entries",
    "probe": "probe.attempts:probe",
    "kernel": "capabilities:facts",
    "programs": "bpf.programs:programs",
    "pins": "bpf.programs:pins",
    "ct": "cilium.ct:entries",
    "nat": "cilium.nat:entries",
    "lb": "cilium.lb:frontends",
    "ipcache": "cilium.tables:ipcache",
    "endpoints": "cilium.tables:endpoints",
    "policy": "cilium.policy:entries",
    "egress": "cilium.tables:egress",
    "ipmasq": "cilium.tables:ipmasq",
    "metrics": "cilium.metrics:rows",
}


def function(name: str) -> Answers:
    """Return the function that answers a question. Raises KeyError when there is none of this
    name."""
    module, _, attribute = ASKS[name].partition(":")
    found: Answers = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
    return found
