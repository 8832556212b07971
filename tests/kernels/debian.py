"""Debian's kernels: downloaded and unpacked into the cache, never installed.

Each series comes from the Debian that has it, by an apt of its own beside the machine's.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cluster.config import CACHE
from tests.lab.cluster.image.debian import mirror

SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": "experimental"}
"""The Debian of each series that can be booted; the newest is what it was when it was cached."""
_NO_SECURITY = ("experimental",)
"""Suites that get their security updates as all others."""
_META = "linux-image-cloud-amd64"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """A kernel, or a program that boots it, cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel.

    Attributes:
        image: the bootable file.
        modules: the folder of its modules, by file name without suffixes.
    """

    image: Path
    modules: dict[str, Path]


def kernel(series: str) -> Kernel:
    """Return a kernel, downloaded once a machine.

    Args:
        series: of SUITES.

    Raises:
        Unavailable: it cannot be downloaded.
    """
    folder = CACHE / f"kernel-{series}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"kernel-{series}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _download(SUITES[series], folder)
    modules = {
        path.name.partition(".ko")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")
    }
    return Kernel(next(folder.rglob("vmlinuz*")), modules)


def _download(suite: str, folder: Path) -> None:
    work = folder.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "root"):
        (work / name).mkdir(parents=True)
    archive = mirror()
    sources = f"deb [signed-by={_KEYRING}] {archive} {suite} main\n"
    if suite not in _NO_SECURITY:
        sources += f"deb [signed-by={_KEYRING}] {archive}-security {suite}-security main\n"
    (work / "sources.list").write_text(sources)
    _apt(work, "apt-get", "update", "-q")
    images = _needed(work, _META, "linux-image-")
    if not images:
        raise Unavailable(f"{suite} has no {_META}")
    # From Linux 7 on the image is an empty package, which needs the kernel and its modules.
    parts = _needed(work, images[0], "linux-binary-") + _needed(work, images[0], "linux-modules-")
    _apt(work, "apt-get", "download", "-q", *(parts or images))
    for package in work.glob("*.deb"):
        _run(work, "dpkg-deb", "--extract", str(package), "root")
    shutil.rmtree(folder, ignore_errors=True)
    (work / "root").rename(folder)
    shutil.rmtree(work)


def _needed(work: Path, package: str, prefix: str) -> list[str]:
    """Return the names of packages that one depends on and that begin so."""
    shown = _apt(work, "apt-cache", "show", "--no-all-versions", package)
    depends = re.search(r"^Depends: (.*)", shown, re.M)
    names = [each.split()[0] for each in depends[1].split(", ")] if depends else []
    return [name for name in names if name.startswith(prefix)]


def _apt(work: Path, program: str, *words: str) -> str:
    options = (
        f"Dir::State={work}", f"Dir::Cache={work}", f"Dir::Etc::sourcelist={work}/sources.list",
        "Dir::Etc::sourceparts=/dev/null", "Dir::State::status=/dev/null",
        "APT::Architecture=amd64", "APT::Sandbox::User=root",
    )  # fmt: skip
    return _run(work, program, *(word for each in options for word in ("-o", each)), *words)


def _run(work: Path, *argv: str) -> str:
    try:
        done = subprocess.run(argv, cwd=work, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        raise Unavailable(f"{argv[0]} {argv[-1]}: {done.stderr.strip()[-300:]}")
    return done.stdout
