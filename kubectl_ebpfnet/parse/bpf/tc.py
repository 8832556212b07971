"""`tc filter show`: the BPF programs at a device's clsact hooks.

    filter protocol all pref 1 bpf chain 0
    filter protocol all pref 1 bpf chain 0 handle 0x1 bpf_lxc.o:[from-container] direct-action …

tc prints a line without a handle for each preference, which is no program, then each filter.

Sources: iproute2's tc/tc_filter.c (print_filter), tc/f_bpf.c (bpf_print_opt), tc-bpf(8). Verified
with iproute2 6.1; older ones do not print the program's name. Programs attached by tcx or netkit
links are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Attachment
from kubectl_ebpfnet.parse._text import integer, lines, next_word, quoted

_SOURCE = "tc filter"
# Words after the name of the filter, in tc's order.
_AFTER_NAME = frozenset(
    ("direct-action", "skip_hw", "skip_sw", "in_hw", "not_in_hw", "bytecode", "id")
)


def filters(data: bytes, device: str, direction: str) -> tuple[Attachment, ...]:
    """Return the BPF filters that `tc filter show dev X ingress|egress` printed, in their order.

    Filters of other kinds (u32, flower, …) are left out.

    Args:
        data: what was printed.
        device: the device that was asked about; tc does not repeat it.
        direction: `ingress` or `egress`.
    """
    hook = f"clsact/{direction}"
    return tuple(_text_filters(data, device, hook))


def _text_filters(data: bytes, device: str, hook: str) -> Iterator[Attachment]:
    for number, text in lines(data, _SOURCE):
        if not text.strip() or text[0].isspace():  # actions and statistics are indented
            continue
        words = iter(text.split())
        if next(words) != "filter":
            raise ParseError(_SOURCE, number, f"not a filter: {quoted(text)}")
        head = _head(words, number)
        if head["kind"] == "bpf" and "handle" in head:
            yield Attachment(
                hook=hook,
                device=device,
                priority=integer(head.get("pref", "0"), _SOURCE, number),
                span=Span(number),
                **_program(list(words), number),
            )


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
