"""What `make dist` made in this checkout, if it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_ebpfnet import __version__
from release.platforms import archive_name, this_platform
from tests.release import krew

DIST = Path(__file__).parents[2] / "dist"
ARCHIVE = DIST / archive_name(__version__, *this_platform())
needs_archive = pytest.mark.skipif(
    not ARCHIVE.exists(), reason="make dist was not run here (make dist-check does, and runs these)"
)


def installed(root: Path) -> Path:
    """Install what was made, as krew does; return the folder for PATH."""
    plugin: Any = yaml.safe_load((DIST / "plugin.yaml").read_text(encoding="utf-8"))
    return krew.install(plugin, ARCHIVE, root, *this_platform())
