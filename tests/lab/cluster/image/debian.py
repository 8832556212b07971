"""Debian 12 in a folder, and `debian:bookworm-slim` without Docker.

The official image is a minbase with apt's three suites and with dpkg told to leave out what only
people read (debuerreotype, `.slimify-excludes`); copyright files stay.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.lab.cluster.processes import LONG_S, run

RECIPE = 2
"""Raised when this file changes what comes out."""
IMAGE = "debian:bookworm-slim"
SUITE = "bookworm"
_MIRROR = "http://deb.debian.org"
_APT = Path("/etc/apt")
_REACH = re.compile(r"Acquire::(https?|Retries|Check)\b")
"""The settings of apt that say how an archive is reached, and what is believed of its dates."""
_READ_BY_PEOPLE = ("doc", "groff", "info", "lintian", "linda", "locale", "man")
_SOURCES = f"""Types: deb
URIs: {_MIRROR}/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {_MIRROR}/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def mirror(apt: Path = _APT) -> str:
    """The URL of the Debian archive that this machine's apt uses; Debian's own if it uses none."""
    for file in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]:
        if file.suffix not in (".list", ".sources") or not file.exists():
            continue
        for line in file.read_text().splitlines():
            found = re.match(r"(?:URIs:|deb\b[^#]*?)\s*(https?://\S+/debian)/?(?:\s|$)", line)
            if found:
                return found[1]
    return f"{_MIRROR}/debian"


def reach(dumped: Iterable[str]) -> str:
    """What `apt-config dump` says about how to reach an archive, for another Debian's apt."""
    return "".join(f"{line}\n" for line in dumped if _REACH.match(line))


def bootstrap(root: Path) -> None:
    """Make a minimal Debian 12 anew, from the archive that this machine uses.

    Raises:
        RuntimeError: debootstrap failed.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    # It mounts proc in the root: here in a namespace, where nothing is left however it ends.
    made = ["debootstrap", "--variant=minbase", SUITE, str(root), mirror()]
    run(["unshare", "--mount", *made], timeout=LONG_S)
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    (root / "etc/apt/apt.conf.d/99machine").write_text(reach(dump.stdout.splitlines()))


def install(image: str, root: Path) -> None:
    """Make the tree of the image.

    Raises:
        ValueError: another image is wanted.
        RuntimeError: debootstrap failed.
    """
    if image != IMAGE:
        raise ValueError(f"FROM {image}: only {IMAGE} is known here")
    bootstrap(root)
    excludes = [f"path-exclude /usr/share/{name}/*\n" for name in _READ_BY_PEOPLE]
    keep = "path-include /usr/share/doc/*/copyright\n"
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text("".join([*excludes, keep]))
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(_SOURCES)
    for name in _READ_BY_PEOPLE:
        _empty(root / "usr/share" / name)
    for name in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / name)
        (root / name).mkdir()
    # debootstrap copies the machine's own.
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Delete the files below a folder except copyright ones; links among them too."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
