"""How long kubectl takes to complete a pod's name, as a multiple of `kubectl get pods -o name`.

Run, with the lab up, or another KUBECONFIG: `.venv/bin/python bench/completion.py`. The medians are
compared (turns.py); the ratio may be 5 at most (issue 14). `kubectl __complete` is what a shell
runs; it runs `kubectl_complete-ebpfnet`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.turns import medians
from tests.lab.cluster.config import ADMIN_CONFIG

MOST = 5.0
BIN = Path(sys.executable).parent
ENV = {
    "KUBECONFIG": str(ADMIN_CONFIG),
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PATH": f"{BIN}:{os.environ['PATH']}",
}
"""As an installed program runs: its modules are compiled once, not by every command."""


def seconds(argv: list[str]) -> float:
    """Wall-clock seconds of one whole process; it has to print a pod."""
    begin = time.perf_counter()
    done = subprocess.run(argv, check=True, capture_output=True, env=ENV)
    took = time.perf_counter() - begin
    if b"pod/" not in done.stdout:
        sys.exit(f"{argv}: no pod in {done.stdout!r}, {done.stderr!r}")
    return took


def main() -> int:
    """Print the medians and their ratio; exit with 1 when the ratio is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--namespace", default="default")
    given = parser.parse_args()
    kubectl = str(BIN / "kubectl")
    where = ["-n", given.namespace]
    compared = {
        "kubectl get pods -o name": [kubectl, "get", "pods", "-o", "name", *where],
        "kubectl __complete": [kubectl, "__complete", "ebpfnet", "path", *where, "pod/"],
        "kubectl_complete-ebpfnet": [str(BIN / "kubectl_complete-ebpfnet"), "path", *where, "pod/"],
    }
    took = medians(compared, seconds, given.runs)
    ratio = took["kubectl __complete"] / took["kubectl get pods -o name"]
    print(f"ratio of completing to listing: {ratio:.2f} (at most {MOST:.0f})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
