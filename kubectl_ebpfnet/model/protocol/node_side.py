"""The node side as it is sent to a node: the sources of what runs there, and their digest.

A node pod's image may have no node side, or that of another version. So the client brings its own:
the files of `_PARTS` as they are installed here, packed into one zip. A program without sources (a
frozen one) has that zip as its data file PACKED, which `write` makes when it is built.

The digest is one of names and contents, so it says the same of installed files and of a zip,
whatever compressed that.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from importlib import util
from pathlib import Path

from kubectl_ebpfnet.errors import EbpfnetError

PACKED = "node-side.zip"
"""Name of the data file in kubectl_ebpfnet/ of a program without sources."""
_PARTS = {
    "kubectl_ebpfnet": ("__init__.py", "errors.py", "model", "node"),
    "pyroute2": ("",),
}
"""Package → what of it runs on a node: files, and folders with all that is below."""
_SUFFIXES = (".py", ".o", ".so")
"""What of a folder is sent: sources; compiled BPF programs, which are the same for every kernel and
processor, and what loads them (bpf/libraries.py). Not .pyc: these are of one version of Python."""
_PACKAGE = Path(__file__).parents[2]
_WHEN = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip can say: bytes depend on contents alone
_FILE = 0o100644 << 16


@functools.cache
def files() -> Mapping[str, bytes]:
    """Return the contents of the node side, by path from the folder of its packages, in order.

    Raises:
        EbpfnetError: this program has neither the sources nor the zip.
    """
    packed = _PACKAGE / PACKED
    if packed.is_file():
        import zipfile  # late: 20 ms

        with zipfile.ZipFile(packed) as archive:
            return {name: archive.read(name) for name in sorted(archive.namelist())}
    return installed()


def installed() -> Mapping[str, bytes]:
    """Return the same of the packages that are installed. Raises as `files`."""
    found = {}
    for package, parts in _PARTS.items():
        root = _root(package)
        for part in parts:
            for path in _sources(root / part):
                found[f"{package}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return dict(sorted(found.items()))


def _root(package: str) -> Path:
    spec = util.find_spec(package)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise EbpfnetError(f"this program has no sources of {package} that it could send to a node")
    return Path(spec.origin).parent


def _sources(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (each for each in path.rglob("*") if each.suffix in _SUFFIXES)
    else:
        yield path


def digest(contents: Mapping[str, bytes]) -> str:
    """Return the digest of these files: 64 hexadecimal digits of SHA-256."""
    whole = hashlib.sha256()
    for name, data in sorted(contents.items()):
        whole.update(f"{len(name)} {name} {len(data)} ".encode())
        whole.update(data)
    return whole.hexdigest()


@functools.cache
def own_digest() -> str:
    """Return the digest of `files`. Raises as `files`."""
    return digest(files())


def packed(contents: Mapping[str, bytes]) -> bytes:
    """Return files as a zip; the same files make the same bytes."""
    import zipfile  # late: 20 ms

    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in sorted(contents.items()):
            info = zipfile.ZipInfo(name, _WHEN)
            info.create_system, info.external_attr = 3, _FILE  # as on Unix, wherever it is packed
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return whole.getvalue()


def write(path: Path) -> str:
    """Write the zip of the installed node side, for a program without sources; return its digest.

    Raises:
        OSError: it cannot be written.
        EbpfnetError: as `files`.
    """
    contents = installed()
    path.write_bytes(packed(contents))
    return digest(contents)
