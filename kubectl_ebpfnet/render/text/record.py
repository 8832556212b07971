"""A whole record: what it is, then its output; as text, and as a document."""

from __future__ import annotations

import shlex
from typing import Any

from kubectl_ebpfnet.capture.record import as_json
from kubectl_ebpfnet.model.evidence import Bundle, Record
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.wrap import columns, hanging, wrap

SCHEMA = "ebpfnet.dev/record/v1"
_STEP = 4
"""Indent of what a line goes on with."""


def document(record: Record) -> dict[str, Any]:
    """Return the record as a line of a .jsonl capture has it (docs/captures.md)."""
    outputs = {"stdout": record.stdout.read(), "stderr": record.stderr}
    texts = {name: data.decode("utf-8", "backslashreplace") for name, data in outputs.items()}
    return {"schema": SCHEMA, **as_json(record), **texts}


def text(record: Record, bundle: Bundle, width: int) -> str:
    """Return the record: its head, an empty line, stdout, and stderr where there is any.

    Args:
        record: of the bundle.
        bundle: names its file.
        width: of the terminal, 0 for lines as they were printed.
    """
    end = f"exit code {record.exit_code}" if record.ran else f"did not run: {record.why_not()}"
    rows = [
        (f"record {record.number} of ", bundle.source),
        ("place    ", str(record.place)),
        ("command  ", shlex.join(record.argv)),
        ("ended    ", f"{end}{f', started {record.started}' if record.started else ''}"),
    ]
    if record.line_filter:
        # What a live run asks is cut down where it is printed (Record.line_filter).
        rows.append(("lines    ", f"only those with {' or '.join(record.line_filter)}"))
    lines = [line for label, value in rows for line in hanging(label, escape(value), width)]
    lines += ["", *_output(record.stdout.read(), width)]
    if record.stderr:
        lines += ["", "stderr:", *_output(record.stderr, width)]
    return "".join(f"{line}\n" for line in lines)


def _output(data: bytes, width: int) -> list[str]:
    """Return the lines of an output, with their tabs; what else a terminal obeys is escaped."""
    if not data:
        return []
    lines = data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    shown = ("\t".join(map(escape, line.removesuffix("\r").split("\t"))) for line in lines)
    return [part for line in shown for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line of an output in parts that fit a terminal, all but the first indented."""
    spaced = line.expandtabs()
    if not width or columns(spaced) <= width:
        return [line]
    first, *more = wrap(spaced, width - _STEP)
    return [first, *(" " * _STEP + part for part in more)]
