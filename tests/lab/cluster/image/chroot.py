"""A tree of files in which a Dockerfile's RUN and COPY are carried out: chroot and overlayfs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cluster.processes import LONG_S, run

_CHROOT = """
if [ -n "$2" ]; then mount -t overlay overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" "$1"
else mount --bind "$1" "$1"; fi
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
exec chroot "$1" /bin/sh -c 'cd "$1" && shift && exec /bin/sh -c "$1"' sh "$5" "$6"
"""
_OPAQUE = "trusted.overlay.opaque"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Tree:
    """Where files are put and commands run.

    Attributes:
        root: the tree, or where the overlay is mounted while a command runs.
        lower: the tree below, if this is an overlay.
    """

    root: Path
    lower: Path | None = None

    @property
    def upper(self) -> Path:
        """Where new files are."""
        return self.root.with_suffix(".upper") if self.lower else self.root

    def run(self, command: str, settings: dict[str, str], folder: str) -> None:
        """Run a command as root of the tree; its mounts and processes end with it."""
        work = self.root.with_suffix(".work")
        for one in (self.root, self.upper, *([work] if self.lower else [])):
            one.mkdir(parents=True, exist_ok=True)
        proxies = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        run(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _CHROOT,
                "sh", str(self.root), str(self.lower or ""), str(self.upper), str(work), folder,
                command,
            ],
            env={**proxies, "PATH": path, **settings},
            stdin=subprocess.DEVNULL,
            timeout=LONG_S,
        )  # fmt: skip

    def copy(self, context: Path, words: Sequence[str]) -> None:
        """COPY: files of the context, by pattern, into a folder."""
        *patterns, target = words
        if not target.endswith("/"):
            raise ValueError(f"COPY to {target}: only into a folder, which ends in /")
        folder = self.upper
        for name in target.strip("/").split("/"):
            folder /= name
            folder.mkdir(parents=True, exist_ok=True)
            below = (self.lower or self.root) / folder.relative_to(self.upper)
            folder.chmod(below.stat().st_mode if below.exists() else 0o755)
        for file in matching(context, patterns):
            shutil.copy(file, folder / file.name)


def pack(upper: Path, target: Path) -> None:
    """An overlay's upper folder as a layer.

    Overlayfs marks what was deleted by a device 0/0, and a folder that hides the one below by the
    attribute trusted.overlay.opaque (Documentation/filesystems/overlayfs.rst). A layer has empty
    files for that, `.wh.NAME` and `.wh..wh..opq` (OCI image specification, "Whiteouts").
    """
    with tarfile.open(target, "w") as tar:
        tar.add(upper, ".", recursive=False)
        for path in sorted(upper.rglob("*")):
            name = f"./{path.relative_to(upper)}"
            said = path.lstat()
            if stat.S_ISCHR(said.st_mode) and said.st_rdev == 0:
                tar.addfile(tarfile.TarInfo(f"{os.path.dirname(name)}/.wh.{path.name}"))
                continue
            tar.add(path, name, recursive=False)
            if stat.S_ISDIR(said.st_mode) and _OPAQUE in os.listxattr(path):
                tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def matching(context: Path, patterns: Sequence[str]) -> list[Path]:
    """The files that COPY's patterns mean; one that means none is an error, as in Docker."""
    found = []
    for pattern in patterns:
        files = sorted(context.glob(pattern))
        if not files:
            raise ValueError(f"COPY {pattern}: {context} has no such file")
        found += files
    return found
