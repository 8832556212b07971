"""`kubectl ebpfnet path` on a live cluster as it is used: pipes, terminals, Ctrl-C, time-outs."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unicodedata import east_asian_width

import pytest

from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.tools.live import path, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

beside = pytest.mark.side_by_side
PATH = ("ebpfnet", "path", "pod/client", f"{WORLD_ADDRESS}:80")


def shell(lab: Lab, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, a pipe that fails failing the line."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=lab.env(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@contextmanager
def a_slow_pod(lab: Lab) -> Iterator[str]:
    """A pod whose `ip` takes three seconds for its first answer."""
    ip = "#!/bin/sh\\n[ -e $0.asked ] || { : >$0.asked; sleep 3; }\\n"
    script = f"printf '{ip}' >/slow/ip && chmod +x /slow/ip && exec sleep infinity"
    container = {
        "command": ["/usr/bin/sh", "-c", script],
        "env": [{"name": "PATH", "value": "/slow:/usr/sbin:/usr/bin"}],
        "volumeMounts": [{"name": "slow", "mountPath": "/slow"}],
    }
    volumes = [{"name": "slow", "emptyDir": {}}]
    with pod_of_our_own(lab, "e2e-slow", "node1", container, more_volumes=volumes) as name:
        wait_until(lambda: "sleep 3" in lab.run(name, "cat", "/slow/ip"))
        yield name


@beside
def test_timeout_shows_what_is_known_by_then(our_lab: Lab) -> None:
    with a_slow_pod(our_lab) as slow:
        begun = time.monotonic()
        answer = path(our_lab, slow, f"{WORLD_ADDRESS}:80", "--timeout", "2s")
        assert time.monotonic() - begun < 5
        assert (answer.code, answer.verdict) == (4, "unknown")
        assert answer.one("program", "cil_from_container")["state"] == "observed"
        assert answer.hops[0]["state"] == "unknown"
        assert "2 s" in answer.document["reason"]
        wait_until(lambda: not left(slow), 60)


@beside
def test_ctrl_c_ends_it_and_leaves_nothing(our_lab: Lab) -> None:
    with a_slow_pod(our_lab) as slow:
        with subprocess.Popen(
            [program(), "ebpfnet", "path", slow, f"{WORLD_ADDRESS}:80"],
            env=our_lab.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            wait_until(lambda: left(slow))
            begun = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=10)
            assert time.monotonic() - begun < 1
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        wait_until(lambda: not left(slow), 60)


def left(pod: str) -> list[str]:
    """Processes that our script runs in a pod: the machine sees those of its nodes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if b"LC_ALL=C; export LC_ALL" in words or b"/slow/ip" in words:
                environment = (folder / "environ").read_bytes()
                if f"HOSTNAME={pod}".encode() in environment:
                    found.append(words.decode(errors="replace"))
    return found


@beside
def test_head_takes_the_first_line(our_lab: Lab) -> None:
    done = shell(our_lab, f"kubectl {' '.join(PATH)} -v | head -1")
    assert " pod/client → 1.1.1.1:80/TCP" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@beside
def test_json_for_a_program(our_lab: Lab) -> None:
    read = "import json, sys; print(json.load(sys.stdin)['verdict'])"
    done = shell(our_lab, f'kubectl {" ".join(PATH)} -o json | {sys.executable} -c "{read}"')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("delivered\n", "leaves\n")  # by when somebody last asked


def on_a_terminal(lab: Lab, words: Sequence[str], **env: str) -> tuple[int, str]:
    """Exit code and what a terminal of 80 columns was sent on stdout."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [program(), *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**lab.env(), "TERM": "xterm", "COLUMNS": "80", **env},
    ) as process:
        os.close(theirs)
        said, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                said += os.read(ours, 65536)
            except OSError:  # Linux: EIO when the other side is closed
                break
        os.close(ours)
        return process.wait(10), said.decode().replace("\r\n", "\n")


def columns(line: str) -> int:
    """How many a terminal needs for a line without escapes."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in line)


@beside
def test_table_fits_80_columns(our_lab: Lab) -> None:
    code, text = on_a_terminal(our_lab, PATH, NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) > 12
    assert [line for line in lines if columns(line) > 80] == []


@beside
def test_colour_on_a_terminal_unless_it_is_not_wanted(our_lab: Lab) -> None:
    assert "\x1b[" in on_a_terminal(our_lab, PATH)[1]
    assert "\x1b[" not in our_lab.kubectl(*PATH).stdout


def test_timeout_too_short_for_the_server(our_lab: Lab) -> None:
    begun = time.monotonic()
    done = our_lab.kubectl(*PATH, "--timeout", "1ms")
    # An error when the source itself was not read by then, else what is known: next to nothing.
    assert done.returncode in (1, 4)
    assert "0.001 s" in done.stderr + done.stdout
    assert "--timeout" in done.stderr + done.stdout
    assert time.monotonic() - begun < 3
