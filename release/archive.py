"""Archives of which the same files give the same bytes, and which krew unpacks.

krew (internal/download/downloader.go) takes directories and regular files alone, no `..` in a name,
and makes no folder for a zip's file: folders stand in the zip, before what is in them.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

_FOLDER_MODE, _FILE_MODE, _PROGRAM_MODE = 0o755, 0o644, 0o755


def pack(folder: Path, into: Path, epoch: int) -> None:
    """Write an archive of all that is in a folder.

    Args:
        folder: its contents stand at the top of the archive; links become what they point to.
        into: the file to write, .tar.gz or .zip.
        epoch: seconds since 1970, the time of every entry.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    (_zip if into.suffix == ".zip" else _tar)(folder, into, epoch)


def repack(archive: Path, epoch: int) -> None:
    """Give all entries of a .tar.gz one time, owner and order: what setuptools writes has none."""
    with tarfile.open(archive) as tar:
        entries = [(entry.name, tar.extractfile(entry)) for entry in tar if entry.isfile()]
        files = {name: file.read() for name, file in entries if file is not None}
    with (
        archive.open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(files):
            tar.addfile(_entry(name, epoch, _FILE_MODE, len(files[name])), io.BytesIO(files[name]))


def _walk(folder: Path) -> Iterator[tuple[str, Path, int]]:
    # A folder stands before what is in it.
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
        executable = path.is_file() and path.stat().st_mode & 0o111
        mode = _FOLDER_MODE if path.is_dir() else _PROGRAM_MODE if executable else _FILE_MODE
        yield path.relative_to(folder).as_posix(), path, mode


def _entry(name: str, epoch: int, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.mode, entry.size = epoch, mode, size
    return entry


def _tar(folder: Path, into: Path, epoch: int) -> None:
    # No name and no time in gzip's own header.
    with (
        into.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path, mode in _walk(folder):
            if path.is_dir():
                entry = _entry(name, epoch, mode)
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                content = path.read_bytes()
                tar.addfile(_entry(name, epoch, mode, len(content)), io.BytesIO(content))


def _zip(folder: Path, into: Path, epoch: int) -> None:
    moment = time.gmtime(max(epoch, 315532800))[:6]  # zip knows no time before 1980
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path, mode in _walk(folder):
            entry = zipfile.ZipInfo(f"{name}/" if path.is_dir() else name, moment)
            entry.create_system = 3  # Unix: the modes below are read
            entry.external_attr = mode << 16 | (0x10 if path.is_dir() else 0)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, b"" if path.is_dir() else path.read_bytes())
