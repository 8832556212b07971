"""The questions of the node side, and the function that answers each.

A function takes the request and yields facts of the class that model/catalogue.py names.
It runs inside of the requested network namespace, and may raise KernelError. Its module is imported
on demand, since most requests need few of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from kubectl_ebpfnet.model.protocol.questions import NodeRequest

Answers = Callable[[NodeRequest], Iterable[Any]]

_HERE = "kubectl_ebpfnet.node"
FUNCTIONS = {
    "links": "netlink.tables:links",
    "addresses": "netlink.tables:addresses",
    "routes": "netlink.tables:routes",
    "rules": "netlink.tables:rules",
    "neighbours": "netlink.tables:neighbours",
    "qdiscs": "netlink.qdiscs:qdiscs",
    "fib": "netlink.tables:fib",
    "wireguard": "netlink.wireguard:devices",
    "wireguard-peers": "netlink.wireguard:peers",
    "xfrm": "netlink.xfrm:states",
    "xfrm-policies": "netlink.xfrm:policies",
    "xfrm-errors": "counters:xfrm",
    "forward": "netlink.forward:forward",
    "attachments": "bpf.attachments:attachments",
    "counters": "counters:counters",
    "sysctls": "sysctls:sysctls",
    "nft-chains": "netlink.nft:chains",
    "conntrack": "netlink.conntrack:entries",
    "tcp-listeners": "netlink.sockets:tcp_listeners",
    "udp-sockets": "netlink.sockets:udp_sockets",
    "probe": "probe.attempts:probe",
    "kernel": "capabilities:facts",
    "programs": "bpf.programs:programs",
    "pins": "bpf.programs:pins",
    "ct": "cilium.ct:entries",
    "nat": "cilium.nat:entries",
    "lb": "cilium.lb:frontends",
    "source-ranges": "cilium.tables:source_ranges",
    "ipcache": "cilium.tables:ipcache",
    "endpoints": "cilium.tables:endpoints",
    "endpoint-states": "cilium.endpoint_states:states",
    "fqdn-cache": "cilium.fqdn:entries",
    "policy": "cilium.policy:entries",
    "tail-calls": "cilium.tail_calls:states",
    "egress": "cilium.tables:egress",
    "ipmasq": "cilium.tables:ipmasq",
    "map-room": "cilium.room:rooms",
    "snat-use": "cilium.room:snat_uses",
    "metrics": "cilium.metrics:rows",
    "trace-layers": "trace.layers:layers",
}


def function(name: str) -> Answers:
    """Return the function that answers a question. Raises KeyError for an unknown question."""
    module, _, attribute = FUNCTIONS[name].partition(":")
    found: Answers = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
    return found
