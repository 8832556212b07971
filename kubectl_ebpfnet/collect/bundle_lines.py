"""JSON lines: one record a line, as a folder of a test or another tool writes them.

A line may hold a whole conntrack table as one JSON string. Such a string is left in the file and
decoded piece by piece when somebody reads it, so opening costs a search for its end (RFC 8259:
a string ends at a quote that no odd run of backslashes precedes).
"""

from __future__ import annotations

import json
import mmap
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kubectl_ebpfnet.collect import bundle_record
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import Held, Output, Record

LONG_LINE = 1 << 20
"""Bytes from which on a line's long strings stay in the file."""
LONG_STRING = 64 << 10
_STEP = 256 << 10
READ_LIMIT = 1 << 30
"""Bytes of one output that may be read at once; streaming has no limit."""
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
            rest: list[bytes] = []
            while left:
                piece = file.read(min(_STEP, left))
                if not piece:
                    raise BundleError(f"{self.label}: the file was cut while it was read")
                left -= len(piece)
                # A space, comma or colon is never part of an escape, of a surrogate pair or of a
                # longer UTF-8 sequence: before one, the text can be cut.
                cut = max(piece.rfind(b" "), piece.rfind(b","), piece.rfind(b":"))
                if not left:
                    cut = len(piece)
                if cut <= 0:
                    rest.append(piece)
                    continue
                rest.append(piece[:cut])
                yield _unescaped(b"".join(rest), self.label)
                rest = [piece[cut:]]


def _unescaped(raw: bytes, label: str) -> bytes:
    if raw.count(b"\\") == raw.count(b"\\n"):
        return raw.replace(b"\\n", b"\n")  # every backslash starts a \n: the common case, fast
    try:
        text = json.loads(b'"' + raw + b'"', strict=False)
    except ValueError as error:
        raise BundleError(f"{label}: bad JSON text: {error}") from None
    return bundle_record.encoded(text, label)


def read_file(path: Path, first: int = 1) -> Iterator[Record]:
    """The records of a .jsonl file, numbered from `first`.

    Raises:
        BundleError: with the line's number.
    """
    with path.open("rb") as file:
        offset = 0
        for line_number, line in enumerate(iter(lambda: file.readline(LONG_LINE), b""), start=1):
            label = f"{path}, line {line_number}"
            if len(line) == LONG_LINE and not line.endswith(b"\n"):
                record, offset = _long_line(path, file, offset, first, label)
                file.seek(offset)
            elif not line.strip():
                offset += len(line)
                continue
            else:
                offset += len(line)
                record = _record(_decoded(line, label), first, label)
            first += 1
            yield record


def read_lines(lines: Iterator[bytes], source: str) -> Iterator[Record]:
    """The records of lines that lie in memory.

    Raises:
        BundleError: with the line's number.
    """
    number = 1
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            label = f"{source}, line {line_number}"
            yield _record(_decoded(line, label), number, label)
            number += 1


def _decoded(line: bytes, label: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise BundleError(f"{label}: JSON nested too deep") from None
    except ValueError as error:
        raise BundleError(f"{label}: bad JSON: {error}") from None


def _no_file(value: object, label: str) -> Output:
    if isinstance(value, Held | LongText):
        return value
    raise BundleError(f"{label}: an output must be text")


def _record(value: Any, number: int, label: str) -> Record:
    return bundle_record.from_json(value, number, label, _no_file)


def _long_line(
    path: Path, file: BinaryIO, start: int, number: int, label: str
) -> tuple[Record, int]:
    """The record of a long line at `start`, and the offset after the line."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        mark = f"long-{secrets.token_hex(16)}-"
        long: list[LongText] = []
        short: list[bytes] = []
        at = start
        for first, last in _strings(data, start, end, label):
            if last - first < LONG_STRING:
                continue
            short += (data[at:first], f"{mark}{len(long)}".encode())
            long.append(LongText(path, first, last, label))
            at = last
        if end - at > LONG_LINE:
            raise BundleError(f"{label}: not a record: {end - at} bytes without a text")
        short.append(data[at:end])
    value = _decoded(b"".join(short), label)
    if isinstance(value, dict):
        for name in ("stdout", "stderr"):
            text = value.get(name)
            if isinstance(text, str) and text.startswith(mark):
                value[name] = long[int(text[len(mark) :])]
    return _record(value, number, label), end + 1


def _strings(data: mmap.mmap, start: int, end: int, label: str) -> Iterator[tuple[int, int]]:
    """Offsets of the contents of every JSON string of a line."""
    at = data.find(b'"', start, end)
    while at >= 0:
        first = at + 1
        last = data.find(b'"', first, end)
        while last >= 0 and _backslashes_before(data, last, first) % 2:
            last = data.find(b'"', last + 1, end)
        if last < 0:
            raise BundleError(f"{label}: bad JSON: a text without an end")
        yield first, last
        at = data.find(b'"', last + 1, end)


def _backslashes_before(data: mmap.mmap, at: int, first: int) -> int:
    count = 0
    while at - count > first and data[at - count - 1] == 0x5C:
        count += 1
    return count
