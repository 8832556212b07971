"""Evidence under a hop, a row or a finding: each record's command once, then its number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.model.evidence import Bundle, Record
from kubectl_ebpfnet.model.matching import matching_lines
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_LONGEST = 400
"""Characters of a line that are shown, as in an excerpt (explain/views/cite.py)."""
_TABS = 8


class Proofs:
    """Prints evidence and remembers whose command was printed.

    Args:
        bundle: has the records.
        view: the terminal.
    """

    def __init__(self, bundle: Bundle, view: View) -> None:
        self._bundle = bundle
        self._view = view
        self._told: set[int] = set()

    def lines(self, evidence: Iterable[Evidence], indent: str) -> list[str]:
        """Return evidence as lines.

        `[12] $ ip route   (pod default/client)`, then the lines with their numbers. A record that
        was told before is its number alone.

        Args:
            evidence: pieces of evidence.
            indent: before each line.
        """
        shown: list[str] = []
        for item in evidence:
            try:
                record = self._bundle.numbered(item.record)
            except IndexError:
                text = f"record {item.record} is not in {self._bundle.source}"
                shown += self._wrapped(indent, text)
                continue
            shown += self._command(record, indent)
            quoted = _quoted(item, record)
            wide = max((len(number) for number, _ in quoted), default=0)
            for number, line in quoted:
                shown += self._wrapped(f"{indent}  {number:>{wide}}{'  ' if wide else ''}", line)
        return shown

    def _command(self, record: Record, indent: str) -> list[str]:
        label = f"{indent}[{record.number}] "
        if record.number in self._told:
            return [label.rstrip()]
        self._told.add(record.number)
        end = "" if record.ok else f", {record.why_not()}"
        return self._wrapped(label, f"$ {record.command}   ({record.place}{end})")

    def _wrapped(self, label: str, text: str) -> list[str]:
        return hanging(label, self._view.text(text.expandtabs(_TABS).rstrip()), self._view.width)


def proof(evidence: Iterable[Evidence], bundle: Bundle, indent: str) -> list[str]:
    """Return evidence as lines of any length, as `Proofs.lines`, for a single place.

    Args:
        evidence: pieces of evidence.
        bundle: has the records.
        indent: before each line.
    """
    return Proofs(bundle, View()).lines(evidence, indent)


def _quoted(item: Evidence, record: Record) -> list[tuple[str, str]]:
    """Return (line number, line) of a piece of evidence; "" for a number that there is none of."""
    quoted: Sequence[str] = item.excerpt
    if not quoted or _is_block(item.lines):
        # An excerpt has no indentation, which a block of JSON is read by. A single line is not
        # looked up: that reads a long table from its beginning.
        lines = _lines(record, item.lines)
        least = min((_indent(line) for line in lines if line.strip()), default=0)
        quoted = [line[least:][:_LONGEST] for line in lines] or item.excerpt
    quoted = [f"{line}…" if len(line) >= _LONGEST else line for line in quoted]
    if len(item.lines) != len(quoted):
        # JSON, or lines that were cut: numbers and lines do not correspond.
        return [("", line) for line in quoted]
    return [(str(number), line) for number, line in zip(item.lines, quoted, strict=True)]


def _is_block(lines: Sequence[int]) -> bool:
    return len(lines) > 1 and lines[-1] - lines[0] == len(lines) - 1


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _lines(record: Record, numbers: Sequence[int]) -> list[str]:
    if not numbers:
        return []
    wanted, found = set(numbers), []
    for number, line in matching_lines(record.stdout, ()):
        if number in wanted:
            found.append(line.decode("utf-8", "replace").rstrip("\r"))
        if number >= max(wanted):
            break
    return found
