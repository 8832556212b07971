"""What can be asked of the node side, and which function answers it.

A function takes the request and gives facts of the class that kubectl_ebpfnet/model/node_side.py
names for it. It runs inside the network namespace that was asked for, and may raise KernelError;
its module is imported when it is asked for, since most requests need few of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from kubectl_ebpfnet.model.node_side import NodeRequest

Answers = Callable[[NodeRequest], Iterable[Any]]

_HERE = "kubectl_ebpfnet.node"
ASKS = {
    "links": "netlink:links",
    "addresses": "netlink:addresses",
    "routes": "netlink:routes",
    "rules": "netlink:rules",
    "neighbours": "netlink:neighbours",
    "fib": "netlink:fib",
    "forward": "forward:forward",
    "attachments": "hooks:attachments",
    "counters": "counters:counters",
    "conntrack": "conntrack:entries",
    "probe": "probe:probe",
    "kernel": "kernel:facts",
    "programs": "programs:programs",
    "pins": "programs:pins",
    "ct": "cilium_ct:entries",
    "nat": "cilium_nat:entries",
    "lb": "cilium_lb:frontends",
    "ipcache": "cilium_tables:ipcache",
    "endpoints": "cilium_tables:endpoints",
    "policy": "cilium_policy:entries",
    "egress": "cilium_tables:egress",
    "ipmasq": "cilium_tables:ipmasq",
    "metrics": "cilium_metrics:rows",
}


def function(name: str) -> Answers:
    """The function that answers a question. Raises KeyError when there is none of this name."""
    module, _, attribute = ASKS[name].partition(":")
    found: Answers = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
    return found
