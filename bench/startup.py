"""How long `kubectl-ebpfnet --help` takes, as a multiple of `python -c 'import typer'`.

Run: `.venv/bin/python bench/startup.py [--runs N]`. Both are whole processes, warm, taken in turns
so that a busy machine slows both; the medians are compared. The ratio may be 1.5 at most (issue 2).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

MOST = 1.5


def seconds(argv: list[str]) -> float:
    """Wall-clock seconds of one whole process."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> int:
    """Print the medians and their ratio; exit with 1 when the ratio is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    program = str(Path(sys.executable).parent / "kubectl-ebpfnet")
    compared = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import typer'": [sys.executable, "-c", "import typer"],
        "kubectl-ebpfnet --help": [program, "--help"],
        "kubectl-ebpfnet path --help": [program, "path", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(runs + 1):
        for name, argv in compared.items():
            taken[name].append(seconds(argv))
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:<28} {median * 1000:6.1f} ms")
    ratio = medians["kubectl-ebpfnet --help"] / medians["python -c 'import typer'"]
    print(f"ratio of --help to import typer: {ratio:.2f} (at most {MOST})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
