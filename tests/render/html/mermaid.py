"""Mermaid's own code, to draw what `-o mermaid` says: fetched once a machine, never shipped.

@mermaid-js/tiny is Mermaid without its rare kinds of diagrams: 0.7 MB, MIT, of the same release.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.lab.cluster.config import CACHE

VERSION = "11.17.2"
FILE = CACHE / f"mermaid-{VERSION}.js"


def fetch() -> None:
    """Fetch it by npm, where that is there and it is not.

    Raises:
        RuntimeError: npm could not.
    """
    if FILE.exists() or shutil.which("npm") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        argv = ["npm", "pack", "--silent", f"@mermaid-js/tiny@{VERSION}"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            code = archive.extractfile("package/dist/mermaid.tiny.js")
            assert code is not None
            CACHE.mkdir(parents=True, exist_ok=True)
            half = FILE.with_suffix(".new")
            half.write_bytes(code.read())
            half.rename(FILE)
