"""`ip [-s] xfrm state list nokeys` and `ip xfrm policy list`, part of parse.iproute.

Source: iproute2's ip/xfrm_state.c and ipxfrm.c (xfrm_state_info_print): a state begins at the
margin, and further lines of it begin with a tab; so does a policy (xfrm_policy_info_print).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.encryption import XfrmPolicy, XfrmState
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse._text import address, integer, lines, network

_SOURCE, _POLICY = "ip xfrm state", "ip xfrm policy"


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


def xfrm_policies(data: bytes) -> tuple[XfrmPolicy, ...]:
    """Return the policies of `ip xfrm policy list`, without those of single sockets. Raises
    ParseError."""
    blocks: list[tuple[int, list[list[str]]]] = []
    for number, text in lines(data, _POLICY):
        words = text.split()
        if not words:
            continue
        if text[0] not in "\t ":
            blocks.append((number, [words]))
        elif not blocks:
            raise ParseError(_POLICY, number, "not a policy")
        else:
            blocks[-1][1].append(words)
    return tuple(_policy(number, first, rest) for number, (first, *rest) in blocks if _of_all(rest))


def _of_all(rest: list[list[str]]) -> bool:
    return not any(words[0] == "socket" for words in rest)


def _policy(number: int, first: list[str], rest: list[list[str]]) -> XfrmPolicy:
    named = _pairs(first)
    if first[::2][:2] != ["src", "dst"]:
        raise ParseError(_POLICY, number, "not the prefixes of a policy")
    version = 6 if ":" in named.get("dst", "") else 4
    source, destination = (
        network(named.get(end), _POLICY, number, version=version) for end in ("src", "dst")
    )
    said: dict[str, str] = {}
    ends: list[Address] = []
    for at, words in enumerate(rest):
        if words[0] == "tmpl":
            optional = any("level" in _pairs(each) and _pairs(each)["level"] == "use"
                           for each in _until_template(rest[at + 1 :]))  # fmt: skip
            end = address(_pairs(words[1:]).get("dst"), _POLICY, number)
            ends += [] if optional or end.is_unspecified else [end]
        elif words[0] in ("dir", "mark"):
            said |= _pairs(words)
    if said.get("dir") not in ("in", "out", "fwd"):
        raise ParseError(_POLICY, number, "a policy without a direction")
    mark, _, mask = said.get("mark", "0/0").partition("/")
    return XfrmPolicy(
        source=source,
        destination=destination,
        direction=said["dir"],
        action=said.get("action", "allow"),
        priority=_number(said.get("priority", "0"), number),
        ends=tuple(ends),
        mark=_number(mark, number),
        mark_mask=_number(mask, number),
        narrowed=bool({"proto", "sport", "dport", "dev"}.intersection(first[4::2])),
        span=Span(number, number + len(rest)),
    )


def _until_template(rest: list[list[str]]) -> Iterator[list[str]]:
    for words in rest:
        if words[0] == "tmpl":
            return
        yield words


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
