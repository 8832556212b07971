"""The zip form of a capture: one small index, and one or more members for each output.

A zip (APPNOTE.TXT, PKWARE) has its directory at its end, so a capture opens without reading its
long outputs. A long output is cut into members of PART bytes. Two threads unpack them (zlib
releases the GIL) while the caller's thread reads the pieces: on two cores that is about as fast as
reading a plain file line by line.

Nothing is extracted to a path, and the sizes in the directory are checked before anything is
unpacked.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from kubectl_ebpfnet.capture import record as record_form
from kubectl_ebpfnet.capture.record import Allowance
from kubectl_ebpfnet.errors import BundleError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import READ_LIMIT, Output, Record

INDEX = "bundle.json"
PART = 512 << 10
"""Bytes of one member of a long output."""
STEP = 256 << 10
INDEX_LIMIT = 64 << 20
RATIO_LIMIT = 1000
"""Deflate cannot pack better than 1032 to 1, and real output packs at most some 100 to 1."""
RATIO_FROM = 16 << 20
INDEX_RATIO_LIMIT = 200
"""An index packs some 20 to 1."""
INDEX_RATIO_FROM = 4 << 20
_PARTS_AHEAD = 6
_HEAD = struct.Struct("<26x2H")
"""Of a member's local header: the lengths of its name and of its extra field."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same records give the same bytes


@dataclass(frozen=True, slots=True)
class Member:
    """Output in a zip, cut into parts; `lines` has the number of newlines of each, or is ()."""

    archive: zipfile.ZipFile
    parts: tuple[zipfile.ZipInfo, ...]
    lines: tuple[int, ...]
    label: str

    def read(self) -> bytes:
        """Return the whole output. Raises ParseError when it is too long for memory."""
        size = sum(part.file_size for part in self.parts)
        if size > READ_LIMIT:
            raise ParseError(self.label, 0, f"{size} bytes are too many to be read whole")
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the output in pieces of at most PART bytes, unpacked on demand."""
        return (chunk for chunk, _ in self.counted_chunks())

    def counted_chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield pieces with their number of newlines, -1 when it is unknown."""
        if len(self.parts) > 1 and all(
            part.file_size <= PART and part.compress_size <= PART for part in self.parts
        ):
            counts = self.lines or (-1,) * len(self.parts)
            yield from zip(self._unpack_ahead(), counts, strict=True)
            return
        for part in self.parts:
            for piece in self._pieces(part):
                yield piece, -1

    def _pieces(self, part: zipfile.ZipInfo) -> Iterator[bytes]:
        with _as_bundle_error(self.label), self.archive.open(part) as file:
            while piece := file.read(STEP):
                yield piece

    def _unpack_part(self, part: zipfile.ZipInfo) -> bytes:
        """Unpack a part at once. It moves no file offset, since other threads read too."""
        if not hasattr(os, "pread"):  # Windows: one thread after the other
            return b"".join(self._pieces(part))
        with _as_bundle_error(self.label):
            assert self.archive.fp is not None
            file = self.archive.fp.fileno()
            head = os.pread(file, _HEAD.size, part.header_offset)
            if len(head) < _HEAD.size:
                raise zipfile.BadZipFile(f"{part.filename} is cut off")
            at = part.header_offset + _HEAD.size + sum(_HEAD.unpack(head))
            data = os.pread(file, part.compress_size, at)
            if part.compress_type == zipfile.ZIP_DEFLATED:
                # One byte beyond the declared size exposes a wrong size; 0 would mean no limit.
                unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
                data = unpacker.decompress(data, part.file_size + 1)
            if len(data) != part.file_size or zlib.crc32(data) != part.CRC:
                raise zipfile.BadZipFile(f"{part.filename} is not what was packed")
            return data

    def _unpack_ahead(self) -> Iterator[bytes]:
        from concurrent.futures import Future, ThreadPoolExecutor

        parts = iter(self.parts)
        running: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(2, "unpack") as pool:
            try:
                for part in parts:
                    running.append(pool.submit(self._unpack_part, part))
                    if len(running) >= _PARTS_AHEAD:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()


class _as_bundle_error:  # noqa: N801 - reads as a verb in `with`
    """Turns the exceptions of zipfile and zlib for damaged files into a BundleError."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(
            error, zipfile.BadZipFile | zlib.error | EOFError | NotImplementedError | RuntimeError
        ):
            raise BundleError(
                f"{self.label}: the file is damaged: {error}", hint="copy it again from its source"
            ) from error


def read(path: Path, source: str) -> tuple[dict[str, Any], list[Record]]:
    """Read the index and the records of a zip; outputs stay packed.

    Args:
        path: the file.
        source: its name, for messages.

    Raises:
        BundleError: the zip is damaged, dangerous, or no capture.
    """
    with _as_bundle_error(source):
        archive = zipfile.ZipFile(path)
    members = _checked_members(archive, source)
    if INDEX not in members:
        raise BundleError(f"{source} is not a capture of kubectl-ebpfnet: it has no {INDEX}")
    size, packed = members[INDEX].file_size, members[INDEX].compress_size
    if size > INDEX_LIMIT or (size > INDEX_RATIO_FROM and size > INDEX_RATIO_LIMIT * packed):
        raise BundleError(f"{source}: {INDEX} has {size} bytes")
    total = max(RATIO_FROM, RATIO_LIMIT * path.stat().st_size)
    allowance = Allowance(source, min(total, record_form.TOTAL_LIMIT))
    with _as_bundle_error(source):
        text = archive.read(INDEX)

    def opener(value: object, lines: object, label: str) -> Output:
        names = record_form.file_names(value, label)
        if not all(name in members for name in names):
            raise BundleError(f"{label}: an output is missing in the file: {value!r}")
        parts = tuple(members[name] for name in names)
        allowance.count_files(len(parts), sum(part.file_size for part in parts))
        return Member(archive, parts, _line_counts(lines, len(parts), label), label)

    return record_form.read_index(text, source, opener, allowance)


def _line_counts(value: object, parts: int, label: str) -> tuple[int, ...]:
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) != parts
        or not all(type(count) is int and count >= 0 for count in value)
    ):
        raise BundleError(f"{label}: the lines of its parts must be as many whole numbers")
    return tuple(value)


def _checked_members(archive: zipfile.ZipFile, source: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if name == "records/":
            continue  # `zip -r` of an unpacked capture lists the folder too
        if name in members:
            raise BundleError(f"{source}: two members are called {name!r}")
        if name != INDEX and not record_form.MEMBER.fullmatch(name):
            raise BundleError(f"{source}: a capture has no member called {name!r}")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleError(f"{source}: member {name!r} is not a plain file")
        if info.flag_bits & 1 or info.compress_type not in (0, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{source}: member {name!r} is encrypted or packed in an unknown way")
        if info.file_size > RATIO_FROM and info.file_size > RATIO_LIMIT * info.compress_size:
            raise BundleError(
                f"{source}: member {name!r} unpacks to {info.file_size} bytes: a bomb"
            )
        members[name] = info
    return members


def write(file: IO[bytes], records: Iterable[Record], *, note: str, created: str, tool: str) -> int:
    """Write records to an open file as they come, the index last.

    Args:
        file: binary, writable, seekable.
        records: numbered anew in their order.
        note, tool: texts of the index.
        created: RFC 3339 time of the index.

    Returns:
        The number of records.
    """
    import json

    entries: list[dict[str, Any]] = []
    with zipfile.ZipFile(file, "w") as archive:
        for number, record in enumerate(records, start=1):
            entry = record_form.as_json(record)
            entry["number"] = number
            outputs = ("out", record.stdout.chunks()), ("err", iter((record.stderr,)))
            for suffix, chunks in outputs:
                names, lines = _write_output(archive, f"records/{number:04}.{suffix}", chunks)
                key = "stdout" if suffix == "out" else "stderr"
                if names:
                    entry[f"{key}_file"] = names[0] if len(names) == 1 else names
                if len(names) > 1:
                    entry[f"{key}_lines"] = lines
            entries.append(entry)
        index = {
            "schema": record_form.SCHEMA,
            "created": created,
            "tool": tool,
            "note": note,
            "records": entries,
        }
        text = json.dumps(index, ensure_ascii=False, indent=1)
        _write_member(archive, INDEX, text.encode("utf-8", "surrogateescape"), 6)
    return len(entries)


def _write_output(
    archive: zipfile.ZipFile, name: str, chunks: Iterator[bytes]
) -> tuple[list[str], list[int]]:
    """Write an output; return the names of its members and the newlines of each."""
    names: list[str] = []
    lines: list[int] = []
    pending: list[bytes] = []
    size = 0

    def flush(part: bytes) -> None:
        # After its first part an output is a long table, where speed counts more than 15 %.
        names.append(f"{name}.{len(names)}" if names else name)
        lines.append(part.count(b"\n"))
        _write_member(archive, names[-1], part, 1 if len(names) > 1 else 6)

    for chunk in chunks:
        pending.append(chunk)
        size += len(chunk)
        if size >= PART:
            data = b"".join(pending)
            while len(data) >= PART:
                flush(data[:PART])
                data = data[PART:]
            pending, size = [data], len(data)
    if size:
        flush(b"".join(pending))
    return names, lines


def _write_member(archive: zipfile.ZipFile, name: str, data: bytes, level: int) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = (stat.S_IFREG | 0o600) << 16
    archive.writestr(info, data, zipfile.ZIP_DEFLATED, level)
