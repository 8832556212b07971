"""The client where Python has no fork, no fcntl, no SIGHUP: what it answers is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.console import environment, run

PRELUDE = str(Path(__file__).parent / "as_seen_on.py")
BOTH = pytest.mark.parametrize("system", ["darwin", "win32"])
CLUSTER = """apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: a, user: {token: x}}]
"""


def seen_on(
    system: str, *words: str, program: str = "kubectl-ebpfnet", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the client as another system would see it, with pipes."""
    return subprocess.run(
        [sys.executable, PRELUDE, system, program, *words],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
        timeout=60,
        check=False,
    )


def text(output: bytes, system: str) -> str:
    """Return output as a program there reads it."""
    if system != "win32":
        return output.decode()
    assert output.count(b"\n") == output.count(b"\r\n")
    return output.decode().replace("\r\n", "\n")


def test_what_is_taken_away_is_not_there() -> None:
    prelude = f"""
import runpy, signal, sys, os
runpy.run_path({PRELUDE!r})["take_away"]("win32")
gone = [hasattr(signal, "SIGHUP"), hasattr(signal, "SIGWINCH"), hasattr(os, "fork"),
        hasattr(os, "getuid"), hasattr(os, "pread"), sys.platform != "win32"]
for name in ("fcntl", "termios", "pwd", "grp", "resource"):
    try:
        __import__(name)
    except ImportError:
        gone.append(False)
print(sum(gone), len(gone))
"""
    argv = [sys.executable, "-c", prelude]
    assert subprocess.run(argv, capture_output=True, check=True).stdout.split() == [b"0", b"11"]


@BOTH
@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "version",
        "version -o json",
        "path --help",
        "path pod/client 1.1.1.1:80 --from demo -o json",
        "path pod/client 1.1.1.1:7777 --from demo:dropped -o yaml",
        "path pod/client 1.1.1.1:80 --from demo -o html",
        "flows pod/client --from demo",
        "programs pod/client --from demo",
        "doctor --from demo -o json",
        "completion bash",
        "path pod/client",
        "path pod/client 1.1.1.1:80 --from nothing.zip",
        "path pod/client 1.1.1.1:80 -o nothing --from demo",
    ],
)
def test_it_answers_as_on_linux(system: str, words: str) -> None:
    # A pipe of Windows has no arrows: there it answers as it does where the locale has none.
    ascii_only = {"LC_ALL": "C"} if system == "win32" else {}
    here, there = run(*words.split(), env=ascii_only), seen_on(system, *words.split())
    assert there.returncode == here.returncode
    said = text(there.stdout, system)
    if "json" in words:
        assert json.loads(said) == json.loads(here.stdout)
    elif "yaml" not in words:
        assert said == here.stdout
    assert text(there.stderr, system).splitlines()[:1] == here.stderr.splitlines()[:1]


@BOTH
def test_the_whole_walk_is_shown(system: str) -> None:
    said = text(
        seen_on(system, "path", "pod/client", "1.1.1.1:80", "--from", "demo").stdout, system
    )
    assert "DELIVERED" in said
    assert ("→" in said) == (system == "darwin")
    assert "cil_from_container" in said


@BOTH
def test_a_cluster_that_is_not_there(system: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CLUSTER)
    done = seen_on(system, "path", "pod/a", "1.1.1.1:80", KUBECONFIG=str(tmp_path / "config"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert text(done.stderr, system).startswith("error: cannot reach https://127.0.0.1:1")


@BOTH
def test_completion_ends_its_lines_as_kubectl_parts_them(system: str) -> None:
    done = seen_on(system, "pa", program="kubectl_complete-ebpfnet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == run("__complete", "pa").stdout.encode()
    assert b"\r" not in done.stdout


def test_what_windows_cannot_do_is_said() -> None:
    done = seen_on("win32", "netkat", "node/a", "1.1.1.1", "80")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"netkat does not run on Windows" in done.stderr
    assert b"WSL" in done.stderr
    done = seen_on("win32", "path", "pod/client", "1.1.1.1:80", "--from", "-")
    assert done.returncode == 1
    assert b"cannot be a capture on Windows" in done.stderr
    done = seen_on("win32", "completion", "--install", KREW_ROOT="/nonexistent")
    assert done.returncode == 1
    assert b"kubectl_complete-ebpfnet.exe on PATH" in done.stderr


def test_a_watch_waits_without_poll() -> None:
    script = f"""
import runpy
runpy.run_path({PRELUDE!r})["take_away"]("win32")
from kubectl_ebpfnet.cli.watching import pause
pause(0.01)
print("waited")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"waited"
