"""`kubectl ebpfnet path` on a live cluster, against one `kubectl exec -- true` in the same run.

    make lab-up && eval "$(make -s lab-up | tail -1)" && .venv/bin/python bench/path_live.py

Once by Cilium's agent, once by a node pod that is running already (and is taken away at the end).
Prints medians of 5 runs and two ratios each: the whole command, and what is left of it when the
interpreter's start and the imports are taken off (`python -c pass`, and the sum of the self times
that `python -X importtime` tells of the same command; part of them runs while the cluster answers).
The cluster is that of KUBECONFIG, else the lab; the pod is `client` in namespace default.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

RUNS = 5
POD, DESTINATION = "client", "1.1.1.1:80"
WHOLE_AT_MOST = 6.0
AFTER_IMPORTS_AT_MOST = {"agent": 2.5, "pod": 2.0}
BIN = Path(sys.executable).parent
LAB = Path("/run/kubectl-ebpfnet-lab/admin.conf")


def median(argv: Sequence[str], env: dict[str, str]) -> float:
    """Median wall time in seconds; the command must not fail."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def imports(words: Sequence[str], env: dict[str, str]) -> float:
    """Seconds that the command spends in importing, itself, not in what it waits for."""
    argv = [sys.executable, "-X", "importtime", str(BIN / "kubectl-ebpfnet"), *words]
    said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stderr
    rows = (line.partition(":")[2].split("|") for line in said.splitlines() if "|" in line)
    return sum(int(row[0]) for row in rows if row[0].strip().isdigit()) / 1e6


def measure(access: str, floor: float, env: dict[str, str]) -> bool:
    """Measure one way to the node; whether it is within its limits."""
    words = ["path", f"pod/{POD}", DESTINATION, "--node-access", access]
    words += ["--keep"] if access == "pod" else []
    # The first run deploys the node pod that the others find.
    subprocess.run([str(BIN / "kubectl-ebpfnet"), *words], env=env, capture_output=True, check=True)
    whole = median([str(BIN / "kubectl"), "ebpfnet", *words], env)
    own = median([str(BIN / "kubectl-ebpfnet"), *words], env)
    start = median([sys.executable, "-c", "pass"], env)
    importing = statistics.median(imports(words, env) for _ in range(RUNS))
    after = own - start - importing
    most = AFTER_IMPORTS_AT_MOST[access]
    print(f"--node-access {access}")
    print(f"  kubectl ebpfnet path          {whole * 1000:7.1f} ms")
    print(f"  kubectl-ebpfnet path          {own * 1000:7.1f} ms")
    print(f"    of it starting Python       {start * 1000:7.1f} ms")
    print(f"    of it imports               {importing * 1000:7.1f} ms")
    print(f"  ratio of the whole: {whole / floor:.2f} (at most {WHOLE_AT_MOST})")
    print(f"  ratio after imports: {after / floor:.2f} (at most {most})")
    return whole / floor <= WHOLE_AT_MOST and after / floor <= most


def main() -> int:
    """Measure and print; 1 when a ratio is above its limit."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    env.setdefault("KUBECONFIG", str(LAB))
    if not Path(env["KUBECONFIG"]).exists():
        print("skipped: no cluster (make lab-up)")
        return 0
    floor = median([str(BIN / "kubectl"), "exec", POD, "--", "true"], env)
    print(f"kubectl exec -- true            {floor * 1000:7.1f} ms")
    try:
        within = [measure(way, floor, env) for way in AFTER_IMPORTS_AT_MOST]
        return 0 if all(within) else 1
    finally:
        subprocess.run(
            [str(BIN / "kubectl-ebpfnet"), "cleanup", "--yes"],
            env=env,
            capture_output=True,
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
