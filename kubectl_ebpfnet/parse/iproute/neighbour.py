"""`ip neigh`, part of parse.iproute.

Source: iproute2's ip/ipneigh.c (print_neigh); the states are NUD_* of
include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Neighbour
from kubectl_ebpfnet.parse._text import (
    address,
    hardware_address,
    is_json,
    json_records,
    json_text,
    lines,
    next_word,
    quoted,
)

_SOURCE = "ip neigh"
_STATES = frozenset(
    ("INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT", "NONE")
)


def neighbours(data: bytes) -> tuple[Neighbour, ...]:
    """Return the entries of `ip [-j] neigh`, in their order.

    Proxy entries are left out: they are addresses that this host answers for, not neighbours.
    The device is "" when the listing was asked for one device (`ip neigh show dev X`).
    """
    if is_json(data):
        found = json_records(data, _SOURCE)
        return tuple(_json_neighbour(one, span) for span, one in found if "proxy" not in one)
    parsed = (_text_neighbour(text, number) for number, text in lines(data, _SOURCE))
    return tuple(neighbour for neighbour in parsed if neighbour is not None)


def _json_neighbour(record: dict[str, Any], span: Span) -> Neighbour:
    states = record.get("state", [])
    if not isinstance(states, list) or not all(isinstance(state, str) for state in states):
        raise ParseError(_SOURCE, 1, '"state" is not a list of words')
    return Neighbour(
        address=address(record.get("dst"), _SOURCE, 1),
        device=json_text(record, "dev", _SOURCE),
        mac=hardware_address(json_text(record, "lladdr", _SOURCE)),
        states=tuple(state.upper() for state in states),
        span=span,
    )


def _text_neighbour(text: str, number: int) -> Neighbour | None:
    words = iter(text.split())
    first = next(words, None)
    if first is None:
        return None
    host = address(first, _SOURCE, number)
    device = mac = ""
    states: list[str] = []
    known = False
    for word in words:
        if word == "dev":
            device = next_word(words, word, _SOURCE, number)
        elif word == "lladdr":
            mac = hardware_address(next_word(words, word, _SOURCE, number))
        elif word == "proxy":
            return None
        elif word in _STATES:
            states.append(word)
        else:
            continue
        known = True
    if not known:
        raise ParseError(_SOURCE, number, f"not a neighbour: {quoted(text)}")
    return Neighbour(host, device, mac, tuple(states), Span(number))
