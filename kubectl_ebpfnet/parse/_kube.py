"""Members that objects of several kinds of the API have."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.kube import Condition
from kubectl_ebpfnet.model.net import TCP, protocol_number


def name(value: Any) -> str:
    """Return the name of an object, "" without one."""
    return js.text(value, "metadata", "name")


def namespace(value: Any) -> str:
    """Return the namespace of an object, "" without one."""
    return js.text(value, "metadata", "namespace")


def condition(item: Any) -> Condition:
    """Return a condition of an object's status."""
    return Condition(*(js.text(item, name) for name in ("type", "status", "reason", "message")))


def is_ready(conditions: list[Any]) -> bool:
    """Tell whether the condition Ready is there and true."""
    return any(
        js.text(item, "type") == "Ready" and js.text(item, "status") == "True"
        for item in conditions
    )


def protocol(name: str) -> int:
    """Return the IANA number of a port's protocol: TCP where none is said."""
    return protocol_number(name) or TCP
