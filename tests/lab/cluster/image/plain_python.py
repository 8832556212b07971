"""Images with a Python and nothing of ours: Debian's, made by debootstrap.

They stand for the published `python:3.11-slim` and `python:3.13-slim`, which are Debian too, and
which cannot be pulled here: those have their Python in /usr/local and no other programs that
matter. Neither needs a debootstrap of its own: Debian 12 is the node image's base without pyroute2,
Debian 13 what `make fresh` keeps.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from tests.lab.cluster.image import node_image
from tests.lab.cluster.image.images import archive

DEBIAN_12 = "docker.io/lab/debian12-stands-for-python:3.11-slim"
DEBIAN_13 = "docker.io/lab/debian13-stands-for-python:3.13-slim"
_FRESH = Path(os.environ.get("EBPFNET_FRESH_CACHE", "/var/cache/kubectl-ebpfnet-fresh"))
_PATH = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIG = {"Env": [_PATH], "Cmd": ["python3"]}
_OURS = "usr/local/lib/python3.11/dist-packages"


def debian_12(folder: Path) -> Path:
    """Make the image in a folder; its path."""
    base = node_image.base()
    without = folder / "without.tar"
    with tarfile.open(without, "w") as layer:  # whiteouts (OCI image specification, layer.md)
        for path in sorted((base / "root" / _OURS).iterdir()):
            layer.addfile(tarfile.TarInfo(f"{_OURS}/.wh.{path.name}"))
    layers = [base / "layer.tar", without]
    return archive(folder / "debian12.tar", DEBIAN_12, layers, _CONFIG)


def debian_13(folder: Path) -> Path | None:
    """Make the image in a folder; its path, None where no Debian 13 is kept on this machine."""
    kept = sorted(_FRESH.glob("trixie-*.tar"), key=os.path.getmtime)
    return archive(folder / "debian13.tar", DEBIAN_13, kept[-1:], _CONFIG) if kept else None
