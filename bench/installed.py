"""The program as its users have it: in a venv of its own, as pipx makes it, and not editable.

A checkout's own venv has pip, setuptools and an editable package, whose .pth files cost every start
of Python some 12 ms.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


@contextmanager
def installed() -> Iterator[Path]:
    """Give the folder with `kubectl-ebpfnet`, and remove it afterwards. Takes 15 s."""
    with tempfile.TemporaryDirectory(prefix="ebpfnet-bench-") as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        into = str(Path(folder) / "bin/python")
        argv = [sys.executable, "-m", "pip", "--python", into, "install", "--quiet", "--compile"]
        subprocess.run([*argv, str(CHECKOUT)], check=True, stderr=subprocess.DEVNULL)
        yield Path(folder) / "bin"
