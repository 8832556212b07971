"""Open a capture: records of a cluster as they were printed, in one file (write.py writes it).

Forms that can be read, recognised by their content (docs/captures.md):

    FILE.zip          what `capture` writes: bundle.json and members (zip.py)
    FOLDER            bundle.json and the same members unpacked, or *.jsonl files in name order
    FILE.jsonl        one record a line (jsonl.py)
    a pipe            the bytes of either file

A folder's bundle.json may name a `base`, another folder beside it: a record of the folder replaces
the base's record of the same place and argv.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kubectl_ebpfnet.capture import jsonl
from kubectl_ebpfnet.capture import record as record_form
from kubectl_ebpfnet.capture import zip as zip_bundle
from kubectl_ebpfnet.capture.record import Allowance
from kubectl_ebpfnet.errors import BundleError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import READ_LIMIT, Bundle, Output, Record, bundle_of

_STEP = 256 << 10
_START = 4  # bytes that tell the form
_MOST_BASES = 16
STREAM_LIMIT = 4 << 30
"""Most bytes that are read from a pipe, into a file of the temporary folder."""
_MAKE = "a capture is made by `kubectl ebpfnet capture -o FILE`"


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open the capture in a file or folder. Long outputs stay on disk until they are read.

    Raises:
        BundleError: the path does not exist, is no capture, is damaged, or is of a newer version.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder(target, (), Allowance(str(target)))
        if not stat.S_ISREG(mode):
            with target.open("rb") as stream:
                return read_stream(stream, str(target))
        if target.name == zip_bundle.INDEX:
            return _folder(target.parent, (), Allowance(str(target)))
        return _file(target, str(target))
    except FileNotFoundError:
        raise BundleError(
            f"no such capture: {target}",
            hint="a capture is made by `kubectl ebpfnet capture -o FILE`; built in are demo, "
            "demo:dropped, demo:unknown",
        ) from None
    except OSError as error:
        raise BundleError(f"cannot read {target}: {error.strerror or error}") from error


def read_stream(stream: IO[bytes], source: str) -> Bundle:
    """Read the capture that comes through a pipe, to its end.

    A zip is searched back and forth, so the bytes are kept in a file of the temporary folder that
    has no name: it is gone however the program ends.

    Args:
        stream: the pipe.
        source: its name, for messages.

    Raises:
        BundleError: it is a terminal, longer than STREAM_LIMIT, or no capture.
    """
    if stream.isatty():
        raise BundleError(f"{source} is a terminal", hint="e.g. ssh jump cat case.zip | … --from -")
    if sys.platform == "win32":  # a file that has no name cannot be opened again there
        raise BundleError(f"{source} cannot be a capture on Windows", hint="save it as a file")
    try:
        with tempfile.TemporaryFile() as file:
            piece = _checked(stream.read(_START), source)
            size = 0
            while piece:
                size += len(piece)
                if size > STREAM_LIMIT:
                    raise BundleError(f"{source} gives more than {STREAM_LIMIT >> 30} GiB")
                file.write(piece)
                piece = stream.read(_STEP)
            file.seek(0)  # what opens /dev/fd shares the place in the file on macOS
            return _file(Path(f"/dev/fd/{file.fileno()}"), source)
    except OSError as error:
        raise BundleError(f"cannot read {source}: {error.strerror or error}") from error


def _file(path: Path, source: str) -> Bundle:
    with path.open("rb", buffering=0) as file:
        start = file.read(_START)
        file.seek(0)
    if _checked(start, source).startswith(b"PK"):
        index, records = zip_bundle.read(path, source)
        return bundle_of(records, source, _note(index, source))
    return bundle_of(jsonl.read_file(path, Allowance(source), source), source)


def _checked(start: bytes, source: str) -> bytes:
    """Return the first bytes of a capture. Raises BundleError for those of no capture."""
    if not start:
        raise BundleError(f"{source} is empty", hint=_MAKE)
    if not start.startswith(b"PK") and not start.lstrip().startswith(b"{"):
        raise BundleError(f"{source} is not a capture of kubectl-ebpfnet", hint=_MAKE)
    return start


def _note(index: dict[str, Any], source: str) -> str:
    note = index.get("note", "")
    if not isinstance(note, str):
        raise BundleError(f"{source}: note must be text")
    return note


# --- folders --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Output in files: one file, or the parts of an unpacked zip in order."""

    paths: tuple[Path, ...]
    label: str

    def read(self) -> bytes:
        """Return the whole output. Raises ParseError when it is too long for memory."""
        size = sum(path.stat().st_size for path in self.paths)
        if size > READ_LIMIT:
            raise ParseError(self.label, 0, f"{size} bytes are too many to be read whole")
        return b"".join(path.read_bytes() for path in self.paths)

    def chunks(self) -> Iterator[bytes]:
        """Yield the output in pieces."""
        for path in self.paths:
            with path.open("rb") as file:
                while piece := file.read(_STEP):
                    yield piece


def _folder(path: Path, seen: tuple[Path, ...], allowance: Allowance) -> Bundle:
    index_path = path / zip_bundle.INDEX
    if not os.path.lexists(index_path):
        raise BundleError(
            f"{path} is not a capture of kubectl-ebpfnet: no {zip_bundle.INDEX} in it"
        )
    size = _plain_size(index_path, str(index_path))
    if size > zip_bundle.INDEX_LIMIT:
        raise BundleError(f"{index_path} has {size} bytes")

    def opener(value: object, _: object, label: str) -> Output:
        return _unpacked(path, value, label, allowance)

    text = index_path.read_bytes()
    index, records = record_form.read_index(text, str(path), opener, allowance)
    for file in sorted(path.glob("*.jsonl")):
        _plain_size(file, str(file))
        records.extend(jsonl.read_file(file, allowance, str(file)))
    base = index.get("base")
    if base is not None:
        records = _overlaid(_base(path, base, seen, allowance), records)
    return bundle_of(records, str(path), _note(index, str(path)))


def _unpacked(folder: Path, value: object, label: str, allowance: Allowance) -> Output:
    names = record_form.file_names(value, label)
    size = 0
    for name in names:
        file = folder / name
        if file.parent.is_symlink():
            raise BundleError(f"{label}: {name!r} is a symbolic link")
        if not os.path.lexists(file):
            raise BundleError(f"{label}: an output is missing in the folder: {name!r}")
        size += _plain_size(file, f"{label}: {name!r}")
    allowance.count_files(len(names), size)
    return Unpacked(tuple(folder / name for name in names), label)


def _plain_size(file: Path, label: str) -> int:
    """Return the bytes of a plain file; refuse links, which may leave the folder, and pipes."""
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise BundleError(f"{label} is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{label} is not a plain file")
    return status.st_size


def _base(path: Path, base: object, seen: tuple[Path, ...], allowance: Allowance) -> Bundle:
    resolved = path.resolve()
    name = base.removeprefix("../") if isinstance(base, str) else ""
    if name == base or "/" in name or name in ("", ".", ".."):
        raise BundleError(f"{path}: base must name a folder beside this one, like '../other'")
    other = resolved.parent / name
    if other.is_symlink():
        raise BundleError(f"{path}: its base {base!r} is a symbolic link")
    if other in (*seen, resolved):
        raise BundleError(f"{path}: its base leads back to itself")
    if not other.is_dir():
        raise BundleError(f"{path}: its base {base!r} is missing")
    if len(seen) >= _MOST_BASES:
        raise BundleError(f"{path}: more than {_MOST_BASES} folders lie over each other")
    return _folder(other, (*seen, resolved), allowance)


def _overlaid(base: Bundle, records: list[Record]) -> list[Record]:
    merged = {(record.place, record.argv): record for record in base.records}
    for record in records:
        merged[record.place, record.argv] = record
    return list(merged.values())
