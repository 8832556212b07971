"""Evidence as lines: the command, its place, and its output."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_ebpfnet.model.evidence import Bundle, Record, matching_lines
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.render.text.style import escape


def proof(evidence: Iterable[Evidence], bundle: Bundle, indent: str) -> list[str]:
    """Return evidence as escaped lines, for below a hop or a finding.

    `$ ip route   (pod default/client, exit code 0)`, then the lines with their numbers.

    Args:
        evidence: pieces of evidence.
        bundle: has the lines of a piece without an excerpt.
        indent: before each line.
    """
    shown: list[str] = []
    for item in evidence:
        try:
            record = bundle.numbered(item.record)
        except IndexError:
            shown.append(f"{indent}record {item.record} is not in {escape(bundle.source)}")
            continue
        shown.append(indent + _command(record))
        shown += [f"{indent}  {line}" for line in _quoted(item, record)]
    return shown


def _command(record: Record) -> str:
    end = f"exit code {record.exit_code}" if record.ran else record.why_not()
    return escape(f"$ {record.command}   ({record.place}, {end})")


def _quoted(item: Evidence, record: Record) -> list[str]:
    quoted = list(item.excerpt) or _lines(record, item.lines)
    numbers: list[str] = [str(n) for n in item.lines]
    if len(numbers) != len(quoted):
        # An excerpt of JSON, or lines that were cut: numbers and lines do not correspond.
        numbers = [""] * len(quoted)
    wide = max((len(n) for n in numbers), default=0)
    return [
        (f"{n:>{wide}}  " if wide else "") + escape(line.expandtabs())
        for n, line in zip(numbers, quoted, strict=True)
    ]


def _lines(record: Record, numbers: tuple[int, ...]) -> list[str]:
    if not numbers:
        return []
    wanted, found = set(numbers), []
    for number, line in matching_lines(record.stdout, ()):
        if number in wanted:
            found.append(line.decode("utf-8", "replace"))
        if number >= max(wanted):
            break
    return found
