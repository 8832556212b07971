"""How long `kubectl-ebpfnet --help` takes, as a multiple of `python -c 'import typer'`.

Run: `.venv/bin/python bench/startup.py [--runs N]`. The medians are compared (turns.py);
the ratio may be 1.5 at most (issue 2).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.turns import medians

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
    took = medians(compared, seconds, runs)
    ratio = took["kubectl-ebpfnet --help"] / took["python -c 'import typer'"]
    print(f"ratio of --help to import typer: {ratio:.2f} (at most {MOST})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
