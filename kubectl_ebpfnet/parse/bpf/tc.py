"""`tc filter show`: the BPF programs at a device's clsact hooks, and filters of other kinds.

    filter protocol all pref 1 bpf chain 0
    filter protocol all pref 1 bpf chain 0 handle 0x1 bpf_lxc.o:[from-container] direct-action …
    filter protocol ip pref 7 u32 chain 0 fh 800::800 order 2048 key ht 800 bkt 0 *flowid :1 …
      match 01010101/ffffffff at 16
        action order 1: mirred (Egress Redirect to device lo) stolen

tc prints a line without a handle for each preference, which is no filter, then each filter.

Sources: iproute2's tc/tc_filter.c (print_filter), tc/f_bpf.c (bpf_print_opt), tc/f_u32.c,
tc-bpf(8). Verified with iproute2 6.1; older ones do not print the program's name. Programs attached
by tcx or netkit links are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.parse._text import integer, lines, next_word, quoted

_SOURCE = "tc filter"
# Words after the name of the filter, in tc's order.
_AFTER_NAME = frozenset(
    ("direct-action", "skip_hw", "skip_sw", "in_hw", "not_in_hw", "bytecode", "id")
)


def filters(data: bytes, device: str, direction: str) -> tuple[Attachment, ...]:
    """Return the filters that `tc filter show dev X ingress|egress` printed: each that runs a
    BPF program, in their order, then one for each preference of another kind (u32, flower, …).

    Args:
        data: what was printed.
        device: the device that was asked about; tc does not repeat it.
        direction: `ingress` or `egress`.
    """
    hook = f"clsact/{direction}"
    return tuple(_text_filters(data, device, hook))


def _text_filters(data: bytes, device: str, hook: str) -> Iterator[Attachment]:
    others: dict[tuple[str, str, str], Attachment] = {}
    last = None
    for number, text in lines(data, _SOURCE):
        if not text.strip():
            continue
        if text[0].isspace():  # matches, actions and statistics are indented
            if last is not None:
                others[last] = replace(others[last], span=Span(others[last].span.line, number))
            continue
        last = None
        words = iter(text.split())
        if next(words) != "filter":
            raise ParseError(_SOURCE, number, f"not a filter: {quoted(text)}")
        head = _head(words, number)
        if head["kind"] == "bpf" and "handle" not in head:
            continue
        there = Attachment(
            hook=hook,
            device=device,
            program_name="",
            priority=integer(head.get("pref", "0"), _SOURCE, number),
            protocol=head.get("protocol", "").removeprefix("all"),
            span=Span(number),
        )
        if head["kind"] == "bpf":
            yield replace(there, **_program(list(words), number))
        elif head["kind"]:
            last = (head.get("chain", ""), head.get("pref", ""), head["kind"])
            others.setdefault(last, replace(there, classifier=head["kind"], direct_action=False))
    yield from others.values()


def _head(words: Iterator[str], number: int) -> dict[str, str]:
    """Return the words up to the handle, or to the end when there is none; `kind` stands alone."""
    head: dict[str, str] = {"kind": ""}
    for word in words:
        if word in ("parent", "block", "protocol", "pref", "chain", "handle"):
            head[word] = next_word(words, word, _SOURCE, number)
            if word == "handle":
                break
        elif not head["kind"]:
            head["kind"] = word
    return head


def _program(words: list[str], number: int) -> dict[str, Any]:
    """Parse the words after the handle: `[flowid X] [NAME] [direct-action] … [id N name X]`."""
    at = 2 if words[:1] == ["flowid"] else 0
    end = at
    while end < len(words) and words[end] not in _AFTER_NAME:
        end += 1
    fields: dict[str, Any] = {
        "program_name": " ".join(words[at:end]),
        "direct_action": "direct-action" in words[end:],
    }
    rest = iter(words[end:])
    for word in rest:
        if word == "id":
            fields["program_id"] = integer(next_word(rest, word, _SOURCE, number), _SOURCE, number)
        elif word == "name":
            name = next_word(rest, word, _SOURCE, number)
            fields["program_name"] = fields["program_name"] or name
        elif word == "tag":
            fields["tag"] = next_word(rest, word, _SOURCE, number)
    return fields
