"""A bundle of facts as a node pod answers them, for tests that need no kernel."""

from __future__ import annotations

import json
from typing import Any

from kubectl_ebpfnet.model.evidence import (
    API,
    Bundle,
    InMemory,
    Place,
    Record,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv

NODE = node_place("n1")
POD = pod_place("shop", "cart")


def answer(place: Place, name: str, *facts: Any) -> Record:
    """The record of one question."""
    stdout = InMemory(b"".join(map(codec.line_of, facts)))
    return Record(0, place, node_argv(name), 0, stdout, started="2026-11-21T10:00:00Z")


def refused(place: Place, name: str, why: str) -> Record:
    """The record of a question that the kernel refused."""
    return Record(0, place, node_argv(name), 1, InMemory(), why.encode())


def pod_object(address: str = "10.0.1.7", host_network: bool = False) -> Record:
    """The pod shop/cart on node n1, as the API says it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {"nodeName": "n1", "hostNetwork": host_network},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
    return Record(0, API, ("get", "pods"), 0, InMemory(json.dumps(pod).encode()))


def bundle(*records: Record) -> Bundle:
    """They as a bundle."""
    return bundle_of(records, source="test")
