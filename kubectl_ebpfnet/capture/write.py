"""Write a capture: one zip (zip.py), which appears under its name only when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.capture import zip as zip_bundle
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import Record, now

_DESCRIPTORS = Path("/proc/self/fd")


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
    if not overwrite:
        refuse_existing(target)
    try:
        with (
            _temporary_beside(target) as (handle, temporary),
            os.fdopen(handle, "w+b") as file,
        ):
            count = write_into(file, records, note, created=created)
            file.flush()
            _move_into_place(temporary, target, overwrite)
        return count
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}") from error


def refuse_existing(path: Path) -> None:
    """Raise BundleError when a file is there."""
    if path.exists() or path.is_symlink():
        raise _exists(path)


def _exists(path: Path) -> BundleError:
    return BundleError(f"{path} is there already", hint="give another name, or --force")


def write_into(
    file: IO[bytes], records: Iterable[Record], note: str = "", *, created: str = ""
) -> int:
    """Write a capture into an open file; return the number of records in it.

    Args:
        file: binary, writable, seekable, empty.
        records, note, created: as for `write_bundle`.

    Raises:
        OSError: it cannot be written.
    """
    tool = f"kubectl-ebpfnet {__version__}"
    return zip_bundle.write(file, records, note=note, created=created or now(), tool=tool)


def _move_into_place(temporary: Path, target: Path, overwrite: bool) -> None:
    if temporary.parent == _DESCRIPTORS:
        _name(temporary, target, overwrite)
        return
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


def _name(unnamed: Path, target: Path, overwrite: bool) -> None:
    """Give a file without a name its own (open(2), O_TMPFILE).

    Raises:
        FileExistsError: there is one, and it is to stay.
        OSError: neither a link nor a copy can be made.
    """
    root = os.open("/", os.O_RDONLY)  # a descriptor makes it linkat(2), which follows the link
    try:
        try:
            os.link(unnamed, target, src_dir_fd=root)
        except FileExistsError:
            if not overwrite:
                raise
            beside = target.with_name(f".{target.name}.{os.getpid()}.part")
            os.link(unnamed, beside, src_dir_fd=root)
            beside.replace(target)
        except OSError:  # a file system that takes the flag, and no link
            with open(unnamed, "rb") as file, target.open("xb" if not overwrite else "wb") as copy:
                shutil.copyfileobj(file, copy)
    finally:
        os.close(root)


@contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """Make a temporary file in the same folder; remove it at the end of the block.

    Where the system can, it has no name until it is whole: a run that is killed leaves nothing.
    """
    try:
        # Linux alone has this flag, and not every file system takes it.
        handle = os.open(path.parent, getattr(os, "O_TMPFILE") | os.O_RDWR, 0o600)  # noqa: B009
    except (AttributeError, OSError):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    else:
        yield handle, _DESCRIPTORS / str(handle)
        return
    try:
        yield handle, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
