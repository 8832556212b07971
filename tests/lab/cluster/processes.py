"""Daemons of the lab: started in a session of their own, known by pid and start time.

The start time (field 22 of /proc/PID/stat, proc(5)) makes sure that a pid that was used again by
somebody else's process is never killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab.cluster.config import STATE

PIDS = STATE / "pids"
DEADLINE_S = 600.0
LONG_S = 3600.0
"""For what downloads, or builds: minutes, and more on a busy machine."""


def run(argv: Sequence[str], **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raises with its stderr when it fails, and when it hangs.

    A thread that waits for ever for a command's output would keep pytest from its end.
    """
    words = {"capture_output": True, "text": True, "check": False, "timeout": DEADLINE_S, **more}
    done = subprocess.run(list(argv), **words)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done  # type: ignore[no-any-return]


def start(name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Start a daemon; its output goes to STATE/logs/NAME.log."""
    logs = STATE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    PIDS.mkdir(parents=True, exist_ok=True)
    log = str(logs / f"{name}.log")
    # Not subprocess: a daemon outlives the program that started it, and nobody waits for it.
    pid = os.posix_spawnp(
        argv[0],
        argv,
        {**os.environ, **(env or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # What our own parent left open stays its own: `flock FILE make lab-up` ends.
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in inherited()),
        ],
        setsid=True,
    )
    record = {"pid": pid, "started": started(pid), "argv": list(argv)}
    (PIDS / f"{name}.json").write_text(json.dumps(record))
    return pid


def inherited() -> list[int]:
    """Descriptors above stderr that a child of ours would have: Python's own are not among them."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def alive(name: str) -> int:
    """The pid of a daemon of ours that still runs, 0 when it does not."""
    try:
        record = json.loads((PIDS / f"{name}.json").read_text())
    except (OSError, ValueError):
        return 0
    pid = int(record["pid"])
    return pid if record["started"] and started(pid) == record["started"] else 0


def stop_all() -> None:
    """Kill every daemon of ours. Nothing is asked first: the lab's whole state goes with them."""
    names = [file.stem for file in PIDS.glob("*.json")]
    for name in names:
        _kill(alive(name))
    wait_for(lambda: not any(map(alive, names)), "the end of the lab's daemons", 10)


def _kill(pid: int) -> None:
    """Kill one process that may just have ended. Pids 0 and -1 would mean many: never."""
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(what: Callable[[], object], why: str, seconds: float) -> bool:
    """Wait until something is true.

    Raises:
        TimeoutError: when it is not in time, unless `why` is "": then False is returned.
    """
    deadline = time.monotonic() + seconds
    while True:
        if what():
            return True
        if time.monotonic() > deadline:
            if why:
                raise TimeoutError(f"{why} did not come within {seconds:.0f} s")
            return False
        time.sleep(0.1)
