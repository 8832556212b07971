"""A node pod's first process: sessions over its socket, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL
from kubectl_ebpfnet.node.server import connect

_HOLD = """
import pathlib, sys
from kubectl_ebpfnet.node.server import zygote
idle, path, *settings = sys.argv[1:]
for word in settings:
    name, _, seconds = word.partition("=")
    assert hasattr(zygote, name)
    setattr(zygote, name, float(seconds))
sys.exit(zygote.serve_sessions(float(idle), pathlib.Path(path)))
"""
_LONG = 100
"""Seconds that a test must not see pass, however slow the machine; pytest allows it 120."""


def _socket(folder: Path) -> Path:
    """Return where the image's node side listens; its folder is made."""
    (folder / "image").mkdir()
    return folder / "image" / "node.sock"


def _until(what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


@pytest.fixture
def held(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A first process and its socket; indirect parameters are its settings, `_STEP_SECONDS=1`."""
    path = _socket(tmp_path)
    settings = [request.param] if hasattr(request, "param") else []
    process = subprocess.Popen([sys.executable, "-c", _HOLD, "60", str(path), *settings])
    try:
        _until(path.exists)
        yield process, path
    finally:
        process.kill()
        process.wait()


def _session(path: Path, *words: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(connect.__file__), "0", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={"EBPFNET_NODE_FOLDER": str(path.parents[1]), "PATH": os.environ["PATH"]},
    )


def _children(pid: int) -> list[int]:
    """Processes that a process has started, or that were left to it."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _stop(pid: int) -> None:
    """Have a process stand still: until it does, SIGTERM would end it."""
    os.kill(pid, signal.SIGSTOP)
    states = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    _until(lambda: {one.read_text().rpartition(")")[2].split()[0] for one in states} == {"T"})


def test_a_session_is_served_and_ends_with_its_exit_code(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    session = _session(held[1])
    request = {"protocol": PROTOCOL, "id": 7, "argv": ["ebpfnet-node", "no-such"]}
    out, _ = session.communicate(f'{json.dumps(request)}\n{{"end": true}}\n'.encode(), timeout=20)
    greeting, answer = (json.loads(line) for line in out.splitlines())
    assert greeting["protocol"] == PROTOCOL
    assert (answer["id"], answer["exit_code"]) == (7, 1)
    assert "no question" in answer["error"]
    assert session.returncode == 0


_WATCHED = """
import os, sys, threading
log = os.open(sys.argv.pop(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event):
    os.write(log, f"{os.getpid()} {event}\\n".encode())
def start(thread):
    note("thread")
    run(thread)
run, threading.Thread.start = threading.Thread.start, start
sys.addaudithook(lambda event, words: event == "socket.__new__" and note(f"socket/{words[1]:d}"))
"""


def test_the_first_process_opens_no_netlink_socket_and_starts_no_thread(tmp_path: Path) -> None:
    path, log = _socket(tmp_path), tmp_path / "log"
    argv = [sys.executable, "-c", _WATCHED + _HOLD, "60", str(path), str(log)]
    with subprocess.Popen(argv) as process:
        try:
            _until(path.exists)
            words = {"protocol": PROTOCOL, "id": 7, "argv": ["ebpfnet-node", "links"]}
            request = f'{json.dumps(words)}\n{{"end": true}}\n'.encode()
            out, _ = _session(path).communicate(request, timeout=20)
            assert json.loads(out.splitlines()[1])["exit_code"] == 0
            threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        finally:
            process.kill()
    noted = [line.split() for line in log.read_text().splitlines()]
    # Its forks do both: the session's, and the one that removes filters of earlier pods.
    assert {event for pid, event in noted if pid != str(process.pid)} >= {"socket/16", "thread"}
    assert {event for pid, event in noted if pid == str(process.pid)} == {"socket/1"}
    assert [task.name for task in threads] == [str(process.pid)]


def test_another_protocol_is_refused_with_both_numbers(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    session = _session(held[1])
    out, _ = session.communicate(b'{"protocol": 99, "id": 1, "argv": ["x"]}\n', timeout=20)
    error = json.loads(out.splitlines()[1])["error"]
    assert f"protocol {PROTOCOL}" in error
    assert "99" in error
    assert session.returncode == 2


def test_a_session_with_words_has_all_three_streams(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    pipe = subprocess.PIPE
    with _session(held[1], "netkat", frames.OPTION, "-h", stderr=pipe) as session:
        assert session.stdout is not None
        assert session.stderr is not None
        assert session.stdout.read().startswith(b"usage: netkat")
        assert session.stderr.read() == frames.frame(frames.Kind.ALIVE)
        assert session.wait(20) == 0
    with _session(held[1], "netkat", frames.OPTION, "--ü", "", stderr=pipe) as session:
        assert session.stderr is not None
        assert "no such option: --ü".encode() in session.stderr.read()
        assert session.wait(20) == 1


def test_a_session_that_comes_before_the_first_process_listens_waits_for_it(
    tmp_path: Path,
) -> None:
    path = _socket(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
        first.bind(str(tmp_path / "first.sock"))
        first.listen()
        first.settimeout(_LONG)
        session = _session(path)
        asking, _ = first.accept()  # it found nobody, and asks the pod's first process for one
        with asking:
            assert asking.recv(100) == b"image"
            asking.send(b"\0")
    with session, subprocess.Popen([sys.executable, "-c", _HOLD, "0.2", str(path)]) as process:
        try:
            assert session.stdout is not None
            assert json.loads(session.stdout.readline())["protocol"] == PROTOCOL
            assert len(_children(process.pid)) == 1  # it is not served by itself
            session.communicate(b'{"end": true}\n', timeout=20)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_session_that_is_killed_takes_its_fork_along(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    assert len(_children(process.pid)) == 1
    session.send_signal(signal.SIGKILL)
    session.communicate()
    _until(lambda: not _children(process.pid))


def test_it_ends_by_itself_when_nobody_comes(tmp_path: Path) -> None:
    path = _socket(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", _HOLD, "0.2", str(path)])
    assert process.wait(timeout=20) == 0
    assert not path.exists()


@pytest.mark.parametrize("held", [f"_STEP_SECONDS={_LONG}"], indirect=True)
def test_sigterm_ends_it_and_its_sessions(held: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    process.terminate()
    assert process.wait(_LONG / 2) == 0  # and not at the next step of its loop
    session.communicate(timeout=20)
    assert session.returncode == 1


@pytest.mark.parametrize("held", [f"_END_SECONDS={_LONG}"], indirect=True)
def test_its_end_waits_for_what_is_still_to_be_put_in_order(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    [slow] = _children(process.pid)
    _stop(slow)
    try:
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    finally:
        os.kill(slow, signal.SIGCONT)
    assert process.wait(_LONG / 2) == 0  # and not when it waits for nobody any more
    session.communicate(timeout=20)


@pytest.mark.parametrize("held", ["_END_SECONDS=1"], indirect=True)
def test_its_end_does_not_wait_for_long(held: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    [stuck] = _children(process.pid)
    _stop(stuck)
    try:
        begin = time.monotonic()
        process.terminate()
        assert process.wait(_LONG / 2) == 0  # the stuck one never ends by itself
        assert time.monotonic() - begin >= 1
    finally:
        os.kill(stuck, signal.SIGKILL)
        session.communicate(timeout=20)
