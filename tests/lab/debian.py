"""`debian:bookworm-slim` without Docker: debootstrap, and what makes that image slim.

The official image is a minbase with apt's three suites and with dpkg told to leave out what only
people read (debuerreotype, `.slimify-excludes`); copyright files stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.processes import run

RECIPE = 1
"""Raised when this file changes what comes out."""
IMAGE = "debian:bookworm-slim"
_MIRROR = "http://deb.debian.org"
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


def install(image: str, root: Path) -> None:
    """Make the tree of the image.

    Raises:
        ValueError: another image is wanted.
        RuntimeError: debootstrap failed.
    """
    if image != IMAGE:
        raise ValueError(f"FROM {image}: only {IMAGE} is known here")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    run(["debootstrap", "--variant=minbase", "bookworm", str(root), f"{_MIRROR}/debian"])
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
