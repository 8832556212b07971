"""JSON lines, one record a line: written by hand, by tests and by other tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.capture import record as record_form
from kubectl_ebpfnet.capture.record import Allowance
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import Output, Record

LINE_LIMIT = 64 << 20
"""Most bytes of one line, which stays in memory, unlike a member of the zip form."""
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"')


def read_file(path: Path, allowance: Allowance, source: str) -> Iterator[Record]:
    """Yield the records of a .jsonl file.

    Args:
        path: the file.
        allowance: limits of the whole capture.
        source: its name, for messages.

    Raises:
        BundleError: a line is no record; the message has its number.
    """
    number = 1
    with path.open("rb") as file:
        for line_number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), start=1):
            label = f"{source}, line {line_number}"
            if len(line) == LINE_LIMIT:
                raise BundleError(
                    f"{label}: {LINE_LIMIT >> 20} MiB or more",
                    hint="the zip form has room for long outputs",
                )
            if line.strip():
                value = _decoded(line, label)
                yield record_form.from_json(value, number, label, _no_file, allowance)
                number += 1


def _decoded(line: bytes, label: str) -> object:
    bare = _TEXTS.sub(b"", line)
    if sum(map(bare.count, (b",", b"[", b"{"))) > record_form.VALUE_LIMIT:
        raise BundleError(f"{label}: not a record: more than {record_form.VALUE_LIMIT} values")
    try:
        return json.loads(line)
    except RecursionError:
        raise BundleError(f"{label}: JSON nested too deep") from None
    except ValueError as error:
        raise BundleError(f"{label}: bad JSON: {error}") from None


def _no_file(_: object, __: object, label: str) -> Output:
    raise BundleError(f"{label}: an output must be text")
