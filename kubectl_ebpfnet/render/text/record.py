"""A whole record as text: what it is, then its output."""

from __future__ import annotations

import shlex

from kubectl_ebpfnet.model.evidence import Bundle, Record
from kubectl_ebpfnet.render.text.style import escape


def text(record: Record, bundle: Bundle) -> str:
    """Return the record: its head, an empty line, stdout, and stderr where there is any.

    Args:
        record: of the bundle.
        bundle: names its file.
    """
    lines = [f"record {record.number} of {bundle.source}", f"place    {record.place}"]
    lines.append(f"command  {shlex.join(record.argv)}")
    end = f"exit code {record.exit_code}" if record.ran else f"did not run: {record.why_not()}"
    lines.append(f"ended    {end}{f', started {record.started}' if record.started else ''}")
    if record.line_filter:
        # What a live run asks is cut down where it is printed (Record.line_filter).
        lines.append(f"lines    only those with {' or '.join(record.line_filter)}")
    head = "".join(f"{escape(line)}\n" for line in lines)
    shown = _output(record.stdout.read())
    if record.stderr:
        shown += f"\nstderr:\n{_output(record.stderr)}"
    return f"{head}\n{shown}"


def _output(data: bytes) -> str:
    """Return an output with its lines and tabs; what else a terminal obeys is escaped."""
    if not data:
        return ""
    lines = data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    return "".join(f"{_line(line)}\n" for line in lines)


def _line(line: str) -> str:
    return "\t".join(map(escape, line.removesuffix("\r").split("\t")))
