"""`path` on a capture, against the commit before its answer was rewritten for a screen.

    .venv/bin/python bench/screen.py

Checks that commit out into a temporary folder, and runs both programs by turns on the same capture,
with the same interpreter and libraries: processor time and wall time of the whole command, modules
compiled before. Exits 1 when the median of either is above 1.2 times the old one's.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEFORE = "b60011c9"
RUNS, AT_MOST = 15, 1.2
WORDS = ("path", "pod/client", "1.1.1.1:80", "--from")
START = "import sys; from kubectl_ebpfnet.cli.app import main; sys.exit(main())"


def run(tree: Path, capture: Path) -> tuple[float, float]:
    """Processor and wall seconds of one run of the program of a tree."""
    env = {**os.environ, "PYTHONPATH": str(tree), "LANG": "C.UTF-8"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # as an installed program runs
    spent, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    argv = [sys.executable, "-c", START, *WORDS, str(capture)]
    done = subprocess.run(argv, env=env, cwd=tree, capture_output=True, check=True)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert b"1.1.1.1:80/TCP" in done.stdout
    return after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime, wall


def main() -> int:
    """Compare, print the ratios, and return the exit code."""
    capture = ROOT / "kubectl_ebpfnet" / "demo" / "delivered.zip"
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run([*git, "add", "-q", "--detach", str(before), BEFORE], check=True)
        try:
            trees = {"before": before, "now": ROOT}
            for tree in trees.values():
                run(tree, capture)
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
            for _ in range(RUNS):
                for name, tree in trees.items():
                    taken[name].append(run(tree, capture))
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
    worst = 0.0
    for index, what in enumerate(("processor", "wall")):
        old, new = (statistics.median(t[index] for t in taken[name]) for name in trees)
        worst = max(worst, new / old)
        print(f"{what}: {new:.3f} s, {new / old:.2f} times {BEFORE}'s {old:.3f} s")
    return int(worst > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
