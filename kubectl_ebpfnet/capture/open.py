"""Open and write a capture: records of a cluster as they were printed, in one file.

Forms that can be read, recognised by their content (docs/captures.md):

    FILE.zip          what `capture` writes: bundle.json and members (zip.py)
    FOLDER            bundle.json and the same members unpacked, or *.jsonl files in name order
    FILE.jsonl        one record a line (jsonl.py)

A folder's bundle.json may name a `base`, another folder beside it: a record of the folder replaces
the base's record of the same place and argv.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.capture import jsonl
from kubectl_ebpfnet.capture import record as record_form
from kubectl_ebpfnet.capture import zip as zip_bundle
from kubectl_ebpfnet.capture.record import Allowance
from kubectl_ebpfnet.errors import BundleError, ParseError
from kubectl_ebpfnet.model.evidence import READ_LIMIT, Bundle, Output, Record, bundle_of, now

_STEP = 256 << 10
_MOST_BASES = 16
_MAKE = "a capture is made by `kubectl ebpfnet capture -f FILE`"
_SAVE = "a capture is searched back and forth: save it to a file, `cat > case.zip`, and name that"


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
            raise BundleError(f"{target} is neither a file nor a folder", hint=_SAVE)
        if target.name == zip_bundle.INDEX:
            return _folder(target.parent, (), Allowance(str(target)))
        return _file(target)
    except FileNotFoundError:
        if str(target) == "-":
            raise BundleError("no capture is read from standard input", hint=_SAVE) from None
        raise BundleError(f"no such capture: {target}") from None
    except OSError as error:
        raise BundleError(f"cannot read {target}: {error.strerror or error}") from error


def _file(path: Path) -> Bundle:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK"):
        index, records = zip_bundle.read(path)
        return bundle_of(records, str(path), _note(index, str(path)))
    if not start:
        raise BundleError(f"{path} is empty", hint=_MAKE)
    if not start.lstrip().startswith(b"{"):
        raise BundleError(f"{path} is not a capture of kubectl-ebpfnet", hint=_MAKE)
    return bundle_of(jsonl.read_file(path, Allowance(str(path))), str(path))


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
        records.extend(jsonl.read_file(file, allowance))
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


# --- writing --------------------------------------------------------------------------------------


def write_bundle(
    path: str | os.PathLike[str],
    records: Iterable[Record],
    note: str = "",
    *,
    overwrite: bool = False,
    created: str = "",
) -> int:
    """Write a capture; the file appears under its name only when it is complete.

    Args:
        path: the zip to write, readable by its owner alone.
        records: written as they come, numbered in their order.
        note: a sentence for the reader of the capture.
        overwrite: replace an existing file.
        created: RFC 3339 time; "" for now.

    Returns:
        The number of records in the file.

    Raises:
        BundleError: the file exists already, or cannot be written.
    """
    target = Path(path)
    exists = BundleError(f"{target} is there already", hint="give another name, or --force")
    if not overwrite and (target.exists() or target.is_symlink()):
        raise exists
    try:
        with _temporary_beside(target) as (handle, temporary):
            with os.fdopen(handle, "w+b") as file:
                count = zip_bundle.write(
                    file,
                    records,
                    note=note,
                    created=created or now(),
                    tool=f"kubectl-ebpfnet {__version__}",
                )
            _move_into_place(temporary, target, overwrite)
        return count
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}") from error


def _move_into_place(temporary: Path, target: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, target)  # unlike a rename, a link never replaces
        except FileExistsError:
            raise
        except OSError:
            if target.exists():  # a file system without hard links: look, then rename
                raise FileExistsError(str(target)) from None
        else:
            return
    temporary.replace(target)


@contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """Make a temporary file in the same folder; remove it at the end of the block."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        yield handle, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
