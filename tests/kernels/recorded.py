"""What a virtual machine told once, for tests that boot none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.kernels.machine import Report

FILE = Path(__file__).parent / "recorded" / "told.json.gz"


def keep(report: Report) -> None:
    """Keep what a kernel's checks told, but for what no path needs."""
    told = {name: each["told"] for name, each in report.told.items()}
    for each in told.values():
        for name in ("secrets", "listed", "policies", "counted"):
            each.pop(name, None)
    text = json.dumps({"kernel": report.kernel, "told": told}, indent=0).encode()
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(gzip.compress(text, mtime=0))


def told() -> dict[str, Any]:
    """Return what each check told, by its name."""
    found: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))["told"]
    return found
