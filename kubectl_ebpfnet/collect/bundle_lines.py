"""JSON lines: one record a line, as a folder of a test or another tool writes them.

A line may hold a whole conntrack table as one JSON string. Such a string is left in the file and
decoded piece by piece when somebody reads it, so opening costs a search for its end (RFC 8259:
a string ends at a quote that no odd run of backslashes precedes).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kubectl_ebpfnet.collect import bundle_record
from kubectl_ebpfnet.collect.bundle_record import Allowance
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import READ_LIMIT, Held, Output, Record

LONG_LINE = 1 << 20
"""Bytes from which on a line's long strings stay in the file."""
LONG_STRING = 64 << 10
_STEP = 256 << 10
GZIP_LIMIT = 512 << 20
"""Bytes that a compressed .jsonl.gz may hold: unlike the zip form, it is read into memory."""


@dataclass(frozen=True, slots=True)
class LongText:
    """Output that stands as a JSON string in a file, from offset `start` to before `end`."""

    path: Path
    start: int
    end: int
    label: str

    def read(self) -> bytes:
        """All of it. Raises BundleError when it is too long to be held."""
        if self.end - self.start > READ_LIMIT:
            raise BundleError(f"{self.label}: an output of {self.end - self.start} bytes")
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The same bytes in pieces, decoded one at a time."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.end - self.start
            rest = b""
            while left:
                piece = file.read(min(_STEP, left))
                if not piece:
                    raise BundleError(f"{self.label}: the file was cut while it was read")
                left -= len(piece)
                cut = _last_seam(piece) if left else len(piece)
                if cut <= 0:
                    rest += piece
                    continue
                yield _unescaped(rest + piece[:cut], self.label)
                rest = piece[cut:]


def _last_seam(piece: bytes) -> int:
    """Where JSON text can be cut: before a space, comma or colon, which is never part of an
    escape, of a surrogate pair or of a longer UTF-8 sequence. -1 when there is none."""
    for byte in (b" ", b",", b":"):
        at = piece.rfind(byte)
        if at > 0:
            return at
    return -1


def _unescaped(raw: bytes, label: str) -> bytes:
    plain = raw.replace(b"\\n", b"\n")
    if b"\\" not in plain:
        return plain  # every backslash was that of a \n: the common case, and fast
    try:
        text = json.loads(b'"' + raw + b'"', strict=False)
    except ValueError as error:
        raise BundleError(f"{label}: bad JSON text: {error}") from None
    return bundle_record.encoded(text, label)


def read_file(path: Path, allowance: Allowance, first: int = 1) -> Iterator[Record]:
    """The records of a .jsonl file, numbered from `first`.

    Raises:
        BundleError: with the line's number.
    """
    with path.open("rb") as file:
        offset = 0
        for line_number, line in enumerate(iter(lambda: file.readline(LONG_LINE), b""), start=1):
            label = f"{path}, line {line_number}"
            if len(line) == LONG_LINE and not line.endswith(b"\n"):
                record, offset = _long_line(path, file, offset, first, label, allowance)
                file.seek(offset)
            elif not line.strip():
                offset += len(line)
                continue
            else:
                offset += len(line)
                record = _record(_decoded(line, label), first, label, allowance)
            first += 1
            yield record


def read_lines(lines: Iterator[bytes], source: str) -> Iterator[Record]:
    """The records of lines that lie in memory.

    Raises:
        BundleError: with the line's number.
    """
    number = 1
    allowance = Allowance(source)
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            label = f"{source}, line {line_number}"
            yield _record(_decoded(line, label), number, label, allowance)
            number += 1


def _decoded(line: bytes, label: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise BundleError(f"{label}: JSON nested too deep") from None
    except ValueError as error:
        raise BundleError(f"{label}: bad JSON: {error}") from None


def _no_file(value: object, _: object, label: str) -> Output:
    if isinstance(value, Held | LongText):
        return value
    raise BundleError(f"{label}: an output must be text")


def _record(value: Any, number: int, label: str, allowance: Allowance) -> Record:
    return bundle_record.from_json(value, number, label, _no_file, allowance)


def _long_line(
    path: Path, file: BinaryIO, start: int, number: int, label: str, allowance: Allowance
) -> tuple[Record, int]:
    """The record of a long line at `start`, and the offset after the line."""
    spans, end = _long_strings(file, start, label)
    mark = f"long-{secrets.token_hex(16)}-"
    short: list[bytes] = []
    at, size = start, 0
    for count, (first, last) in enumerate([*spans, (end, end)]):
        file.seek(at)
        size += first - at
        if size > LONG_LINE:
            raise BundleError(f"{label}: not a record: {size} bytes without a long text")
        short.append(file.read(first - at))
        if count < len(spans):
            short.append(f"{mark}{count}".encode())
        at = last
    value = _decoded(b"".join(short), label)
    if isinstance(value, dict):
        for name in ("stdout", "stderr"):
            text = value.get(name)
            if isinstance(text, str) and text.startswith(mark):
                first, last = spans[int(text[len(mark) :])]
                value[name] = LongText(path, first, last, label)
    return _record(value, number, label, allowance), end + 1


def _long_strings(file: BinaryIO, start: int, label: str) -> tuple[list[tuple[int, int]], int]:
    """Offsets of the contents of every long JSON string of a line, and of the line's end."""
    spans = []
    opened = -1  # offset of the content of the string that we are in
    end = start
    for offset in _quotes(file, start):
        if offset < 0:
            end = -offset
        elif opened < 0:
            opened = offset + 1
        else:
            if offset - opened >= LONG_STRING:
                spans.append((opened, offset))
            opened = -1
    if opened >= 0:
        raise BundleError(f"{label}: bad JSON: a text without an end")
    return spans, end


def _quotes(file: BinaryIO, offset: int) -> Iterator[int]:
    """Offsets of the quotes of a line that no backslash escapes; last the line's end, negated."""
    file.seek(offset)
    before = 0  # backslashes at the end of the block before
    while block := file.read(_STEP):
        newline = block.find(b"\n")
        stop = len(block) if newline < 0 else newline
        at = block.find(b'"', 0, stop)
        while at >= 0:
            run = at - len(block[:at].rstrip(b"\\")) if block[at - 1 : at] == b"\\" else 0
            if (run + (before if run == at else 0)) % 2 == 0:
                yield offset + at
            at = block.find(b'"', at + 1, stop)
        if newline >= 0:
            break
        run = len(block) - len(block.rstrip(b"\\"))
        before = run + (before if run == len(block) else 0)
        offset += len(block)
    else:
        stop = 0
    yield -(offset + stop)
