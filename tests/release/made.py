"""What `make dist` made in this checkout, if it did."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_ebpfnet import __version__
from release.platforms import archive_name, this_platform
from tests.release import krew

DIST = Path(__file__).parents[2] / "dist"
ARCHIVE = DIST / archive_name(__version__, *this_platform())


def _of_these_sources() -> bool:
    """Tell whether the wheel beside the archive, of which that is made, has what stands here."""
    wheels = list(DIST.glob("*.whl"))
    if not ARCHIVE.exists() or len(wheels) != 1:
        return False
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("kubectl_ebpfnet/")]
        return all(
            (DIST.parent / name).is_file() and wheel.read(name) == (DIST.parent / name).read_bytes()
            for name in names
        )


needs_archive = pytest.mark.skipif(
    not _of_these_sources(),
    reason="make dist was not run for these sources (make dist-check does, and runs these)",
)


def installed(root: Path) -> Path:
    """Install what was made, as krew does; return the folder for PATH."""
    plugin: Any = yaml.safe_load((DIST / "plugin.yaml").read_text(encoding="utf-8"))
    return krew.install(plugin, ARCHIVE, root, *this_platform())
