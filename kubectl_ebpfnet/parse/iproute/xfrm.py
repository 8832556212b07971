"""`ip [-s] xfrm state list nokeys`, part of parse.iproute.

Source: iproute2's ip/xfrm_state.c and ipxfrm.c (xfrm_state_info_print): a state begins at the
margin, and further lines of it begin with a tab.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.encryption import XfrmState
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.parse._text import address, integer, lines

_SOURCE = "ip xfrm state"


def xfrm_states(data: bytes) -> tuple[XfrmState, ...]:
    """Return the states of `ip [-s] xfrm state list nokeys`. Raises ParseError."""
    found: list[XfrmState] = []
    for number, text in lines(data, _SOURCE):
        words = text.split()
        if not words:
            continue
        if text[0] not in "\t ":
            found.append(_begun(words, number))
        elif not found:
            raise ParseError(_SOURCE, number, "not a state")
        else:
            found[-1] = _with(found[-1], words, number)
    return tuple(found)


def _begun(words: list[str], number: int) -> XfrmState:
    named = _pairs(words)
    if words[::2][:2] != ["src", "dst"]:
        raise ParseError(_SOURCE, number, "not the ends of a state")
    source, destination = (address(named.get(end), _SOURCE, number) for end in ("src", "dst"))
    return XfrmState(source, destination, "", 0, span=Span(number))


def _with(state: XfrmState, words: list[str], number: int) -> XfrmState:
    """Return a state with what one of its lines says."""
    named = _pairs(words)
    state = replace(state, span=Span(state.span.line, number))
    if words[0] == "proto":
        return replace(
            state,
            protocol=named["proto"],
            spi=_number(named.get("spi", ""), number),
            mode=named.get("mode", ""),
        )
    if words[0] == "mark":
        mark, _, mask = named.get("mark", "").partition("/")
        return replace(state, mark=_number(mark, number), mark_mask=_number(mask, number))
    if len(words) == 2 and words[1].endswith("(packets)"):
        return replace(state, packets=_number(words[1], number))
    if "failed" in named:
        return replace(state, failed=_number(named["failed"], number))
    return state


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=False))


def _number(text: str, line: int) -> int:
    """Return a number that may be hexadecimal, without the repetition that -s adds in brackets."""
    return integer(text.partition("(")[0], _SOURCE, line, most=0xFFFFFFFF)
