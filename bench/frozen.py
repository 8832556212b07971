"""How long the program of `make dist` takes, against a bare frozen typer program and the venv.

Run: `.venv/bin/python bench/frozen.py [--runs N]`; where no archive was made it says so and passes.
Whole processes, warm, in turns, called through one symlink as krew makes it; medians are compared:

* `--help` may take 1.3 times a program that is frozen in the same way, and prints the help of one
  typer command: what a frozen program of this kind takes at the least (issue 15);
* `path --from demo` may take 1.2 times the same in a venv as pipx makes it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.installed import CHECKOUT, installed
from bench.turns import medians
from tests.release import made

MOST_HELP, MOST_PATH = 1.3, 1.2
BARE = '''
import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def hello(name: str) -> None:
    """Greet."""
    print(name)


app()
'''
PATH_DEMO = ("path", "pod/client", "1.1.1.1:80", "--from", "demo")


def seconds(argv: Sequence[str]) -> float:
    """Wall-clock seconds of one whole process."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def bare(folder: Path) -> str:
    """Freeze the bare program with the PyInstaller of `make dist`; return its path."""
    (folder / "bare.py").write_text(BARE)
    python = CHECKOUT / "build/release/venv/bin/python"
    folders = [f"--distpath={folder}", f"--workpath={folder / 'work'}", f"--specpath={folder}"]
    left_out = [f"--exclude-module={name}" for name in ("rich", "pygments", "markdown_it")]
    argv = [
        str(python),
        "-m",
        "PyInstaller",
        "--noconfirm",
        "--log-level=ERROR",
        *folders,
        *left_out,
    ]
    subprocess.run([*argv, str(folder / "bare.py")], check=True)
    for library in (folder / "bare/_internal").glob("libpython*"):
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
    return str(folder / "bare/bare")


def main() -> int:
    """Print the medians and both ratios; exit with 1 when one is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    if not made.ARCHIVE.exists():
        print("no archive in dist/: make dist makes one")
        return 0
    with tempfile.TemporaryDirectory(prefix="ebpfnet-frozen-") as folder, installed() as venv:
        frozen = str(made.installed(Path(folder) / "krew") / "kubectl-ebpfnet")
        compared = {
            "bare --help": [bare(Path(folder)), "--help"],
            "archive --help": [frozen, "--help"],
            "venv --help": [str(venv / "kubectl-ebpfnet"), "--help"],
            "archive path": [frozen, *PATH_DEMO],
            "venv path": [str(venv / "kubectl-ebpfnet"), *PATH_DEMO],
        }
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        found = medians(compared, seconds, runs)
    for_help = found["archive --help"] / found["bare --help"]
    for_path = found["archive path"] / found["venv path"]
    print(f"--help against the bare frozen program: {for_help:.2f} (at most {MOST_HELP})")
    print(f"path --from demo against the venv: {for_path:.2f} (at most {MOST_PATH})")
    return 0 if for_help <= MOST_HELP and for_path <= MOST_PATH else 1


if __name__ == "__main__":
    sys.exit(main())
