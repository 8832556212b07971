"""Dataclasses to plain JSON values, for the machine-readable answer and for the tests.

Addresses and networks become text, enums their value, sets sorted lists. `line` fields are left
out: evidence says where a fact was read.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from kubectl_ebpfnet.model.net import Flow, protocol_name


def plain(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None.

    Args:
        value: a model object, or any nesting of tuples, sets and model objects.

    Raises:
        TypeError: for a type that the model does not use.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value
    if isinstance(value, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return str(value)
    if isinstance(value, Flow):
        return flow(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {
            f.name: plain(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.name != "line"
        }
    raise TypeError(f"no JSON form for {type(value).__name__}")


def flow(value: Flow) -> dict[str, Any]:
    """A 5-tuple: protocol by name, addresses as text, ports as numbers or null."""
    return {
        "protocol": protocol_name(value.protocol),
        "source": str(value.source),
        "source_port": value.source_port,
        "destination": str(value.destination),
        "destination_port": value.destination_port,
    }
