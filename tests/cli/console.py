"""Runs the real console entry, alone and through kubectl, as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
PROGRAM = str(BIN / "kubectl-ebpfnet")
KUBECTL = str(BIN / "kubectl")
SECONDS = 60


def environment(**more: str) -> dict[str, str]:
    """No kubeconfig, no colour wishes, the venv first on PATH."""
    kept = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR")}
    return {
        **kept,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent/kubeconfig",
        **more,
    }


def run(
    *words: str, env: Mapping[str, str] | None = None, program: Sequence[str] = (PROGRAM,)
) -> subprocess.CompletedProcess[str]:
    """Run to the end, with pipes for stdout and stderr."""
    return subprocess.run(
        [*program, *words],
        capture_output=True,
        encoding="utf-8",
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )


def through_kubectl(
    *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same as `kubectl ebpfnet …`, the plugin found on PATH."""
    return run("ebpfnet", *words, env=env, program=(KUBECTL,))


def on_a_terminal(
    *words: str, columns: int = 80, stderr_too: bool = False, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and what a terminal of so many columns was sent."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "TERM": "xterm", **(env or {})}
    with subprocess.Popen(
        [PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs if stderr_too else subprocess.DEVNULL,
        env=environment(**size),
    ) as process:
        os.close(theirs)
        text = _read(ours, time.monotonic() + SECONDS)
        return process.wait(SECONDS), text.replace("\r\n", "\n")


def _read(terminal: int, deadline: float) -> str:
    said = b""
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux: EIO when the other side is closed
            break
        if not piece:
            break
        said += piece
    os.close(terminal)
    return said.decode("utf-8")
