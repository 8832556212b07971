"""Dataclasses to plain JSON values and back: machine-readable answers, the node side's lines.

Addresses and networks become text, enums their value, sets sorted lists. Places of facts (Span)
are left out: evidence says where a fact was read.
"""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Flow, protocol_name, protocol_number
from kubectl_ebpfnet.model.untrusted import address, json_value


def plain(value: Any, brief: bool = False) -> Any:
    """Return a value as dicts, lists, strings, numbers, booleans and None.

    Args:
        value: a model object, or any nesting of tuples, sets and model objects.
        brief: leave out members that have their default, which `fact` puts back.

    Raises:
        TypeError: for a type that the model does not use.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return str(value)
    if isinstance(value, Flow):
        return flow(value)
    if isinstance(value, (tuple, list)):
        return [plain(item, brief) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item, brief) for item in value)
    if isinstance(value, dict):
        return {str(key): plain(item, brief) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        shown = {}
        for name, default in _members(value.__class__):
            member = getattr(value, name)
            if not brief or member != default:
                shown[name] = member if type(member) in _PLAIN else plain(member, brief)
        return shown
    raise TypeError(f"no JSON form for {type(value).__name__}")


_PLAIN = frozenset({str, int, bool, type(None)})


@cache
def _members(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return names and defaults of a dataclass's fields, without places."""
    return tuple((f.name, f.default) for f in dataclasses.fields(kind) if f.default is not NOWHERE)


def flow(value: Flow) -> dict[str, Any]:
    """Return a 5-tuple: protocol by name, addresses as text, ports as numbers or None."""
    return {
        "protocol": protocol_name(value.protocol),
        "source": str(value.source),
        "source_port": value.source_port,
        "destination": str(value.destination),
        "destination_port": value.destination_port,
    }


def line_of(fact: Any) -> bytes:
    """Return a fact as a line of JSON, as the node side's answers and their records hold it.

    Members that have their default are left out: a line is shown as evidence, and read by people.
    """
    return _encode(plain(fact, brief=True)).encode() + b"\n"


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


def fact(line: bytes, kind: Any, number: int = 0, source: str = "a fact") -> Any:
    """Read the fact of a line of `line_of`.

    Args:
        line: one JSON value.
        kind: the fact's dataclass, or another type of the model (`Network`). Members that the class
            does not know are ignored: a newer node side may send more.
        number: 1-based line in its record, kept in the fact's `span` where it has one.
        source: name of the parsed text, for the error.

    Raises:
        ParseError: the line is no JSON, or not of this type.
    """
    try:
        value = typed(json_value(line, source), kind)
    except ParseError as error:  # knows the line of the fact, not that of the record
        raise ParseError(source, number, error.problem) from None
    except ValueError as error:
        raise ParseError(source, number, str(error)) from None
    if number and dataclasses.is_dataclass(value) and hasattr(value, "span"):
        object.__setattr__(value, "span", Span(number))  # frozen; nobody else has it yet
    return value


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, frozenset[Any]]]:
    """Return the type of each member, and which plain types are taken as they are."""
    hints = get_type_hints(kind)
    types = {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.default is not NOWHERE}
    return {
        name: (hint, _PLAIN.intersection(get_args(hint) if _is_union(hint) else (hint,)))
        for name, hint in types.items()
    }


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def typed(value: Any, kind: Any) -> Any:
    """Return a decoded JSON value as an object of a model type. Raises ValueError or ParseError."""
    if kind is Any or (type(value) is kind and kind in _PLAIN):  # most members
        return value
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _one_of(value, get_args(kind))
    if origin is tuple:
        members = get_args(kind)
        if members[-1] is Ellipsis:
            return tuple(typed(item, members[0]) for item in _list(value))
        items = _list(value)
        if len(items) != len(members):
            raise ValueError(f"{len(items)} values where {len(members)} belong")
        return tuple(typed(item, member) for item, member in zip(items, members, strict=True))
    if origin is frozenset:
        return frozenset(typed(item, get_args(kind)[0]) for item in _list(value))
    if kind is Flow:
        return _flow(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"no object where {kind.__name__} belongs")
        known = {
            name: member if type(member := value[name]) in plain else typed(member, hint)
            for name, (hint, plain) in _fields(kind).items()
            if name in value
        }
        try:
            return kind(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None
    if kind in (IPv4Address, IPv6Address, IPv4Network, IPv6Network):
        if not isinstance(value, str):
            raise ValueError("no text where an address belongs")
        return kind(value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{value!r} where {kind.__name__} belongs")
    return value


def _one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(value) in _PLAIN and type(value) in kinds:
        return value
    problem = ValueError(f"{value!r} is of no known type")
    for kind in kinds:
        if kind is not type(None):
            try:
                return typed(value, kind)
            except (ValueError, ParseError) as error:
                problem = ValueError(str(error))
    raise problem


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no list where one belongs")
    return value


_PORT = get_args(int | None)


def _flow(value: Any) -> Flow:
    if not isinstance(value, dict):
        raise ValueError("no object where a flow belongs")
    try:
        number = protocol_number(value["protocol"])
        if number is None:
            raise ValueError(f"no protocol {value['protocol']!r}")
        return Flow(
            number,
            address(value["source"], "a flow"),
            _one_of(value["source_port"], _PORT),
            address(value["destination"], "a flow"),
            _one_of(value["destination_port"], _PORT),
        )
    except (KeyError, AttributeError) as error:
        raise ValueError(f"a flow without {error}") from None
