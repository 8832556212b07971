"""`ip rule`, part of parse.iproute.

Source: iproute2's ip/iprule.c (print_rule); FRA_* of include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Rule
from kubectl_ebpfnet.model.net import Network, protocol_number
from kubectl_ebpfnet.parse._text import (
    integer,
    is_json,
    json_integer,
    json_records,
    json_text,
    lines,
    network,
    next_word,
    quoted,
)

_SOURCE = "ip rule"
_MARK_BITS = 0xFFFFFFFF
_ACTIONS = frozenset(("blackhole", "unreachable", "prohibit", "nop", "nat", "masquerade"))
# iproute2's word for the table of a rule that looks up a VRF's table.
_VRF_TABLE = "[l3mdev-table]"
# The iif or oif does not exist now, or the goto's target does not.
_REMARKS = frozenset(("[detached]", "[unresolved]"))
# Words that do not affect packets: the origin of the rule, and its accounting classes.
_SKIPPED_VALUES = frozenset(("proto", "protocol", "realms"))
# Members of the JSON form that are read, or repeat another member.
_MEMBERS_WORDS = (
    "priority not src srclen dst dstlen fwmark fwmask iif iif_detached oif oif_detached table"
    " l3mdev goto unresolved nop action protocol flow_from flow_to tos tun_id ipproto"
    " sport sport_start sport_end dport dport_start dport_end uid_start uid_end"
    " suppress_prefixlen suppress_ifgroup"
)
_MEMBERS = frozenset(_MEMBERS_WORDS.split())
_HIGHEST_ID = 0xFFFFFFFF  # of users
_RANGES = {"sport": "source_ports", "dport": "destination_ports", "uidrange": "users"}


def rules(data: bytes, version: int = 4) -> tuple[Rule, ...]:
    """Return the rules of `ip [-j] [-6] rule`, in their order: the lowest priority first.

    Args:
        data: the output.
        version: 4 or 6: the family of the listing, which it does not show.
    """
    if is_json(data):
        found = json_records(data, _SOURCE)
        return tuple(_json_rule(record, version, span) for span, record in found)
    return tuple(
        _text_rule(text, number, version) for number, text in lines(data, _SOURCE) if text.strip()
    )


def rules6(data: bytes) -> tuple[Rule, ...]:
    """Return the rules of `ip -6 rule`."""
    return rules(data, version=6)


def _json_rule(record: dict[str, Any], version: int, span: Span) -> Rule:
    mark = record.get("fwmark")
    goto = None if record.get("goto") == "none" else json_integer(record, "goto", _SOURCE)
    action = json_text(record, "action", _SOURCE, "lookup")
    if "goto" in record:
        action = "goto"
    for name in ("nop", "l3mdev"):
        action = name if name in record else action
    other = {name for name in record if name not in _MEMBERS}
    protocol = _protocol(json_text(record, "ipproto", _SOURCE), other)
    return Rule(
        priority=integer(record.get("priority"), _SOURCE, 1),
        table=json_text(record, "table", _SOURCE) if action == "lookup" else "",
        source=_json_prefix(record, "src", version),
        destination=_json_prefix(record, "dst", version),
        mark=None if mark is None else integer(mark, _SOURCE, 1, most=_MARK_BITS),
        mark_mask=integer(record.get("fwmask", _MARK_BITS), _SOURCE, 1, most=_MARK_BITS),
        in_device=json_text(record, "iif", _SOURCE),
        out_device=json_text(record, "oif", _SOURCE),
        action=action,
        inverted="not" in record,
        protocol=protocol,
        source_ports=_json_range(record, "sport"),
        destination_ports=_json_range(record, "dport"),
        users=_json_range(record, "uid"),
        tos=json_text(record, "tos", _SOURCE),
        tunnel_id=json_integer(record, "tun_id", _SOURCE),
        suppress_prefix=json_integer(record, "suppress_prefixlen", _SOURCE),
        suppress_group=json_text(record, "suppress_ifgroup", _SOURCE),
        other_selectors=tuple(sorted(other)),
        goto=goto,
        version=version,
        span=span,
    )


def _json_range(record: dict[str, Any], name: str) -> tuple[int, ...]:
    """Return the lowest and the highest number of a range, () where the rule has none."""
    low = json_integer(record, f"{name}_start", _SOURCE)
    high = json_integer(record, f"{name}_end", _SOURCE)
    one = json_integer(record, name, _SOURCE)
    if one is not None:
        return one, one
    return () if low is None or high is None else (low, high)


def _protocol(name: str, other: set[str]) -> int | None:
    """Return a protocol's number; one without a number here is added to the other selectors."""
    number = protocol_number(name.removeprefix("ipproto-")) if name else None
    if name and number is None:
        other.add("ipproto")
    return number


def _json_prefix(record: dict[str, Any], name: str, version: int) -> Network | None:
    prefix = json_text(record, name, _SOURCE, "all")
    length = json_integer(record, f"{name}len", _SOURCE)
    return _prefix(prefix if length is None else f"{prefix}/{length}", 1, version)


def _prefix(text: str, number: int, version: int) -> Network | None:
    return None if text == "all" else network(text, _SOURCE, number, version=version)


def _text_rule(text: str, number: int, version: int) -> Rule:
    priority, colon, rest = text.partition(":")
    if not colon:
        raise ParseError(_SOURCE, number, f"not a rule: {quoted(text)}")
    fields: dict[str, Any] = {
        "priority": integer(priority, _SOURCE, number),
        "table": "",
        "action": "",
        "version": version,
        "span": Span(number),
    }
    other: set[str] = set()
    words = iter(rest.split())
    for word in words:
        if word == "not":
            fields["inverted"] = True
        elif word in ("from", "to"):
            prefix = _prefix(next_word(words, word, _SOURCE, number), number, version)
            fields["source" if word == "from" else "destination"] = prefix
        elif word in ("iif", "oif"):
            device = next_word(words, word, _SOURCE, number)
            fields["in_device" if word == "iif" else "out_device"] = device
        elif word == "fwmark":
            _text_mark(fields, next_word(words, word, _SOURCE, number), number)
        elif word in _SKIPPED_VALUES:
            next_word(words, word, _SOURCE, number)
        elif word in ("lookup", "goto") or word in _ACTIONS:
            _text_action(fields, word, words, number)
        elif word not in _REMARKS:
            _text_selector(fields, other, word, next(words, ""), number)
    if not fields["action"]:
        raise ParseError(_SOURCE, number, f"a rule without an action: {quoted(text)}")
    return Rule(**fields, other_selectors=tuple(sorted(other)))


def _text_selector(
    fields: dict[str, Any], other: set[str], word: str, value: str, number: int
) -> None:
    """Read a selector with a value; what is not understood joins the other selectors.

    Args:
        fields: of the rule.
        other: names of selectors that are not evaluated.
        word: the selector's name.
        value: the next word.
        number: of the line.
    """
    match word:
        case "ipproto":
            fields["protocol"] = _protocol(value, other)
        case "sport" | "dport" | "uidrange" if "/" not in value:
            low, dash, high = value.partition("-")
            bounds = tuple(
                integer(bound, _SOURCE, number, most=_HIGHEST_ID)
                for bound in (low, high if dash else low)
            )
            fields[_RANGES[word]] = bounds
        case "tos":
            fields["tos"] = value
        case "tun_id":
            fields["tunnel_id"] = integer(value, _SOURCE, number)
        case "suppress_prefixlength":
            fields["suppress_prefix"] = integer(value, _SOURCE, number)
        case "suppress_ifgroup":
            fields["suppress_group"] = value
        case _:
            other.add(word)


def _text_mark(fields: dict[str, Any], value: str, number: int) -> None:
    mark, slash, mask = value.partition("/")
    fields["mark"] = integer(mark, _SOURCE, number, most=_MARK_BITS)
    if slash:
        fields["mark_mask"] = integer(mask, _SOURCE, number, most=_MARK_BITS)


def _text_action(fields: dict[str, Any], word: str, words: Iterator[str], number: int) -> None:
    fields["action"] = word
    fields["table"] = ""  # BusyBox prints `lookup unspec` before any other action
    if word == "goto":
        target = next_word(words, word, _SOURCE, number)
        fields["goto"] = None if target == "none" else integer(target, _SOURCE, number)
    elif word == "lookup":
        table = next_word(words, word, _SOURCE, number)
        if table == _VRF_TABLE:
            fields["action"] = "l3mdev"
        else:
            fields["table"] = table
