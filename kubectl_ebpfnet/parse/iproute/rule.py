"""`ip rule`, part of parse.iproute.

Source: iproute2's ip/iprule.c (print_rule); FRA_* of include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Rule
from kubectl_ebpfnet.model.net import Network
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
    " l3mdev goto unresolved nop action protocol flow_from flow_to uid_end sport_end dport_end"
    " sport_mask dport_mask"
)
_MEMBERS = frozenset(_MEMBERS_WORDS.split())
# The JSON form's names of selectors, where the text form has another.
_TEXT_NAMES = {
    "uid_start": "uidrange",
    "sport_start": "sport",
    "dport_start": "dport",
    "suppress_prefixlen": "suppress_prefixlength",
}


def rules(data: bytes, version: int = 4) -> tuple[Rule, ...]:
    """Return the rules of `ip [-j] [-6] rule`, in their order: the lowest priority first.

    Args:
        data: the output.
        version: 4 or 6: the family of a prefix called `default`.
    """
    if is_json(data):
        found = json_records(data, _SOURCE)
        return tuple(_json_rule(record, version, span) for span, record in found)
    return tuple(
        _text_rule(text, number, version) for number, text in lines(data, _SOURCE) if text.strip()
    )


def _json_rule(record: dict[str, Any], version: int, span: Span) -> Rule:
    mark = record.get("fwmark")
    goto = json_integer(record, "goto", _SOURCE)
    action = json_text(record, "action", _SOURCE, "lookup")
    if goto is not None:
        action = "goto"
    for name in ("nop", "l3mdev"):
        action = name if name in record else action
    other = {_TEXT_NAMES.get(name, name) for name in record if name not in _MEMBERS}
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
        other_selectors=tuple(sorted(other)),
        goto=goto,
        span=span,
    )


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
            other.add(word)
            next(words, None)
    if not fields["action"]:
        raise ParseError(_SOURCE, number, f"a rule without an action: {quoted(text)}")
    return Rule(**fields, other_selectors=tuple(sorted(other)))


def _text_mark(fields: dict[str, Any], value: str, number: int) -> None:
    mark, slash, mask = value.partition("/")
    fields["mark"] = integer(mark, _SOURCE, number, most=_MARK_BITS)
    if slash:
        fields["mark_mask"] = integer(mask, _SOURCE, number, most=_MARK_BITS)


def _text_action(fields: dict[str, Any], word: str, words: Iterator[str], number: int) -> None:
    fields["action"] = word
    fields["table"] = ""  # BusyBox prints `lookup unspec` before any other action
    if word == "goto":
        fields["goto"] = integer(next_word(words, word, _SOURCE, number), _SOURCE, number)
    elif word == "lookup":
        table = next_word(words, word, _SOURCE, number)
        if table == _VRF_TABLE:
            fields["action"] = "l3mdev"
        else:
            fields["table"] = table
