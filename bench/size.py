"""Commands beside 1,000 nodes and 30,000 pods: time against three nodes or fewer, and memory.

    make size        (.venv/bin/python bench/size.py [path|memory|capture])

The cluster is a FAKE API server in another process (tests/collect/large_cluster.py): a recorded one
of two nodes, whose agents answer by a shell of this machine, and one more; beside it, objects of
the size that a real API server sends, with lists in pages. They were encoded before: what a real
server takes to read them from its store is not in these times.

- `path` to the outside, to a pod's address and to a Service takes at most TIMES times what it takes
  without the further objects: the median of whole commands, in turns;
- `doctor`, `capture` of everything, `programs -A`, `flows -A` and `probe-lb` (its plan: nobody
  sends anything here) take at most MEGABYTES (ru_maxrss of the process, which has no children);
- `path --from` that capture takes at most TIMES times what the commit SINCE takes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
NODES, PODS = 997, 30_000
RUNS = 11
TIMES, MEGABYTES = 1.3, 300.0
SINCE = "6cb24d9a"
ENV = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "KUBECONFIG")}
PATHS = (
    ("path", "pod/client", "1.1.1.1:80"),
    ("path", "pod/client", "10.244.0.135:8080"),
    ("path", "pod/client", "svc/web:80"),
)
MEMORY = (
    ("doctor",),
    ("programs", "-A"),
    ("flows", "-A"),
    ("probe-lb", "svc/web-lb", "--dry-run=client"),
)


def once(argv: Sequence[str], root: Path = ROOT) -> tuple[float, float]:
    """Run a command of a checkout; return its seconds and megabytes. 3 and 4 are answers, too."""
    program = [sys.executable, "-c", "from kubectl_ebpfnet.cli.app import main; main()"]
    begun = time.perf_counter()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [*program, *argv], cwd=root, env=ENV, stdout=subprocess.DEVNULL, stderr=said
        ) as run,
    ):
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        if run.returncode not in (0, 3, 4):
            said.seek(0)
            raise RuntimeError(f"{' '.join(argv)}: {said.read().decode()}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def in_turns(commands: dict[str, tuple[Sequence[str], Path]]) -> dict[str, float]:
    """Return the median seconds of commands; the first run of each warms up."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(RUNS + 1):
        for name, (argv, root) in commands.items():
            seconds, _ = once(argv, root)
            if run:
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


@contextmanager
def server(nodes: int, pods: int) -> Iterator[tuple[str, ...]]:
    """Give the flags that lead to a cluster with so many further nodes and pods."""
    argv = [sys.executable, "-m", "tests.collect.large_cluster", str(nodes), str(pods)]
    with subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        yield ("--server", running.stdout.readline().strip())
        running.stdin.close()


def said(name: str, value: float, unit: str, most: float) -> bool:
    """Print a figure; return whether it is within its limit."""
    print(f"{name:55} {value:8.2f} {unit} (at most {most})", flush=True)
    return value <= most


def paths() -> bool:
    """Compare `path` with few and with many objects."""
    within = True
    with server(1, 0) as few, server(NODES, PODS) as many:
        for words in PATHS:
            found = in_turns({"few": ((*words, *few), ROOT), "many": ((*words, *many), ROOT)})
            ratio = found["many"] / found["few"]
            name = f"{' '.join(words)}, {found['few']:.2f} s"
            within &= said(name, ratio, "times", TIMES)
    return within


def memory() -> bool:
    """Measure what the others take at most."""
    within = True
    with server(NODES, PODS) as many, tempfile.TemporaryDirectory() as folder:
        for words in (*MEMORY, ("capture", "-o", f"{folder}/all.zip")):
            seconds, megabytes = once((*words, *many))
            within &= said(f"{' '.join(words[:2])}, {seconds:.1f} s", megabytes, "MB", MEGABYTES)
    return within


def captured() -> bool:
    """Compare `path --from` a large capture with what an older commit takes."""
    with tempfile.TemporaryDirectory() as folder:
        file, old = f"{folder}/all.zip", Path(folder) / "old"
        with server(NODES, PODS) as many:
            once(("capture", "-o", file, *many))
        old.mkdir()
        archive = subprocess.run(
            ["git", "archive", SINCE], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
        argv = ("path", "pod/client", "10.244.0.135:8080", "--from", file)
        found = in_turns({"old": (argv, old), "new": (argv, ROOT)})
    name = f"path --from a capture of all, {found['old']:.2f} s by {SINCE}"
    return said(name, found["new"] / found["old"], "times", TIMES)


def main() -> int:
    """Measure and print; 1 when something is above its limit."""
    parts = {"path": paths, "memory": memory, "capture": captured}
    within = [parts[name]() for name in sys.argv[1:] or parts]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
