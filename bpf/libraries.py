"""Fetch the libbpf and libelf that node pods get with the node side: Debian 12's, unchanged.

python bpf/libraries.py      build.py calls it too

An image with Python and glibc 2.33 or later rarely has libbpf. Debian 12's needs no more than that,
libelf and zlib, which Python has. The packages are known by their digests, so what is built is the
same everywhere; they are downloaded once a machine. Their texts of copyright lie beside them:
libbpf is LGPL-2.1 or BSD-2-Clause, libelf is LGPL-3 (or GPL-2) or later.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

BUILT = Path(__file__).resolve().parent.parent / "kubectl_ebpfnet/node/bpf/built"
_POOLS = (
    "http://deb.debian.org/debian/pool/main",
    # What a later release of Debian 12 takes out of the pool.
    "http://snapshot.debian.org/archive/debian/20250901T000000Z/pool/main",
)
_SECONDS = 15
PACKAGES = {
    ("libbpf", "amd64"): (
        "libb/libbpf/libbpf1_1.1.2-0+deb12u1_amd64.deb",
        "5e7505ef77ebc84ad0203411e4afdeb8a98f40fb7f78f013aa4dd8710e49f8ed",
    ),
    ("libbpf", "arm64"): (
        "libb/libbpf/libbpf1_1.1.2-0+deb12u1_arm64.deb",
        "c9929839798e7d8e66b212f345ecf1653ba7f1a9e1b753d0eb67bd521b0b5511",
    ),
    ("libelf", "amd64"): (
        "e/elfutils/libelf1_0.188-2.1_amd64.deb",
        "619add379c606b3ac6c1a175853b918e6939598a83d8ebadf3bdfd50d10b3c8c",
    ),
    ("libelf", "arm64"): (
        "e/elfutils/libelf1_0.188-2.1_arm64.deb",
        "32971952d8f5d563447bf275f24e26057500924da2d855c1edb53b0f0400bd11",
    ),
}
"""(library, Debian's architecture) → path in the pool, SHA-256."""


def files(to: Path = BUILT) -> list[Path]:
    """Return where the libraries and their texts of copyright are put."""
    names = [(f"{library}-{machine}.so", f"{library}.copyright") for library, machine in PACKAGES]
    return sorted({to / name for pair in names for name in pair})


def fetch(to: Path = BUILT) -> str:
    """Put the libraries into a folder, where they are not there.

    Returns:
        Why not, "" where all are there.
    """
    if all(path.exists() for path in files(to)):
        return ""
    to.mkdir(exist_ok=True)
    try:
        for (library, machine), (path, digest) in PACKAGES.items():
            members = _members(_package(path, digest))
            shared = next(data for name, data in members.items() if f"/{library}" in name
                          and ".so" in name)  # fmt: skip
            text = next(data for name, data in members.items() if name.endswith("/copyright"))
            _write(to / f"{library}-{machine}.so", shared)
            _write(to / f"{library}.copyright", text)
    except (OSError, ValueError, StopIteration) as error:
        return (
            f"libbpf for node pods is not fetched: {error}; `trace` needs an image that has it"
            " (Debian: libbpf1)"
        )
    return ""


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(data)
    new.rename(path)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kubectl-ebpfnet"


def _package(path: str, digest: str) -> bytes:
    kept = _cache() / path.rpartition("/")[2]
    if kept.exists() and hashlib.sha256(kept.read_bytes()).hexdigest() == digest:
        return kept.read_bytes()
    problem: Exception | None = None
    for pool in _POOLS:
        try:
            with urllib.request.urlopen(f"{pool}/{path}", timeout=_SECONDS) as answer:
                data = answer.read()
        except OSError as error:
            problem = problem or error
            continue
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{pool}/{path} is another file than expected")
        kept.parent.mkdir(parents=True, exist_ok=True)
        _write(kept, data)
        return data
    raise OSError(f"{path}: {problem}")


def _members(package: bytes) -> dict[str, bytes]:
    """Return the regular files of a package: an ar archive (deb(5)) with a tar of them."""
    at = len(b"!<arch>\n")
    while at < len(package):
        head = package[at : at + 60]
        name, size = head[:16].strip(), int(head[48:58])
        if name.startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(package[at + 60 : at + 60 + size])) as archive:
                regular = [each for each in archive if each.isfile()]
                return {each.name: archive.extractfile(each).read() for each in regular}  # type: ignore[union-attr]
        at += 60 + size + size % 2
    raise ValueError("a package without files")


if __name__ == "__main__":
    if problem := fetch():
        print(problem, file=sys.stderr)
