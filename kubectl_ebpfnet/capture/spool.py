"""Buffers for output as it arrives: a short output in memory, a long one in an unnamed file.

The file has no name (tempfile.TemporaryFile), so it is gone however the program ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import READ_LIMIT, InMemory, Output

MEMORY_LIMIT = 4 << 20
"""Most bytes of an output in memory."""
STDERR_LIMIT = 32 << 10
"""Most bytes of a stderr: it is text for a person, and stays in memory."""
_STEP = 256 << 10


_offset = threading.Lock()


def _write_at(file: int, data: memoryview, at: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, at)
    with _offset:  # Windows has one offset for all threads
        os.lseek(file, at, os.SEEK_SET)
        return os.write(file, data)


def _read_at(file: int, size: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file, size, at)
    with _offset:
        os.lseek(file, at, os.SEEK_SET)
        return os.read(file, size)


class Spooled:
    """Output in an unnamed file."""

    def __init__(self, folder: Path | None) -> None:
        # A descriptor, not a file object: nobody closes outputs, and an open file object warns.
        # __del__ closes the descriptor when the last record is gone.
        with tempfile.TemporaryFile(dir=folder) as file:
            self._file = os.dup(file.fileno())
        self._size = 0

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._file)

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when there is no room."""
        view = memoryview(data)
        while view:
            count = _write_at(self._file, view, self._size)
            self._size += count
            view = view[count:]

    def read(self) -> bytes:
        """Return the whole output. Raises ParseError when it is too long for memory."""
        if self._size > READ_LIMIT:
            raise ParseError("the output", 0, f"{self._size} bytes are too many to be read whole")
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the output in pieces."""
        at = 0
        while at < self._size:
            piece = _read_at(self._file, min(_STEP, self._size - at), at)
            if not piece:
                return
            yield piece
            at += len(piece)


class Spool:
    """Gathers the pieces of one output."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is for the file of a long output; None for the temporary folder."""
        self._folder = folder
        self._in_memory: list[bytes] = []
        self._size = 0
        self._file: Spooled | None = None

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when there is no room."""
        if not data:
            return
        if self._file is not None:
            self._file.write(data)
            return
        self._in_memory.append(data)
        self._size += len(data)
        if self._size > MEMORY_LIMIT:
            self._file = Spooled(self._folder)
            for piece in self._in_memory:
                self._file.write(piece)
            self._in_memory = []

    def output(self) -> Output:
        """Return the output; nothing may be written afterwards."""
        return self._file if self._file is not None else InMemory(b"".join(self._in_memory))


class StderrSpool(Spool):
    """Gathers the pieces of one stderr: its beginning, its end, and between them a line that tells
    how many bytes were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._start = b""
        self._end = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Append."""
        room = STDERR_LIMIT // 2 - len(self._start)
        if room > 0:
            self._start += data[:room]
            data = data[room:]
        self._end += data
        if len(self._end) > STDERR_LIMIT:
            self._shorten()

    def _shorten(self) -> None:
        too_many = max(0, len(self._end) - STDERR_LIMIT // 2)
        del self._end[:too_many]
        self._left_out += too_many

    def output(self) -> Output:
        """Return the shortened output; nothing may be written afterwards."""
        self._shorten()
        if not self._left_out:
            return InMemory(self._start + self._end)
        return InMemory(
            b"%s\n%s\n%s" % (self._start, _left_out(f"{self._left_out} bytes"), self._end)
        )


def short_stderr(output: Output) -> bytes:
    """Return the stderr of a capture; cut it if it is longer than this program writes."""
    limit = 2 * STDERR_LIMIT  # redaction can lengthen it
    data = b""
    for piece in output.chunks():
        data += piece
        if len(data) > limit:
            return data[:limit] + b"\n%s\n" % _left_out(f"what is beyond {limit} bytes")
    return data


def _left_out(what: str) -> bytes:
    return f"[kubectl-ebpfnet left out {what} here]".encode()
