"""A node pod's first process: sessions over its socket, and its end."""

from __future__ import annotations

import contextlib
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

from kubectl_ebpfnet.model.node_side import PROTOCOL
from kubectl_ebpfnet.node import doorway

_HOLD = "from kubectl_ebpfnet.node.hold import hold; import sys, pathlib; sys.exit(hold(float(sys.argv[1]), pathlib.Path(sys.argv[2])))"  # noqa: E501


def _until(what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = tmp_path / "node.sock"
    process = subprocess.Popen([sys.executable, "-c", _HOLD, "60", str(path)])
    try:
        _until(path.exists)
        yield process, path
    finally:
        process.kill()
        process.wait()


def _session(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(doorway.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"EBPFNET_NODE_SOCKET": str(path), "PATH": os.environ["PATH"]},
    )


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


def test_another_protocol_is_refused_with_both_numbers(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    session = _session(held[1])
    out, _ = session.communicate(b'{"protocol": 99, "id": 1, "argv": ["x"]}\n', timeout=20)
    error = json.loads(out.splitlines()[1])["error"]
    assert f"protocol {PROTOCOL}" in error
    assert "99" in error
    assert session.returncode == 2


def test_a_session_that_is_killed_takes_its_child_along(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = held
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: len(children.read_text().split()) == 1)  # that one waits for a session
    (serving,) = children.read_text().split()
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    _until(lambda: len(children.read_text().split()) == 2)
    session.send_signal(signal.SIGKILL)
    session.communicate()
    _until(lambda: len(children.read_text().split()) == 1)
    assert serving not in children.read_text().split()


def test_a_fork_that_dies_before_its_session_is_replaced(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = held
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: len(children.read_text().split()) == 1)
    (waiting,) = children.read_text().split()
    os.kill(int(waiting), signal.SIGKILL)
    _until(lambda: children.read_text().split() not in ([], [waiting]))
    session = _session(path)
    out, _ = session.communicate(b'{"end": true}\n', timeout=20)
    assert json.loads(out.splitlines()[0])["protocol"] == PROTOCOL


def test_the_fork_that_waits_ends_with_the_first_process(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, _ = held
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: len(children.read_text().split()) == 1)
    (waiting,) = children.read_text().split()
    process.kill()
    process.wait()
    _until(lambda: not Path(f"/proc/{waiting}").exists())


def test_it_ends_by_itself_when_nobody_comes(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    process = subprocess.Popen([sys.executable, "-c", _HOLD, "0.2", str(path)])
    assert process.wait(timeout=20) == 0
    assert not path.exists()


def test_sigterm_ends_it_and_its_sessions(held: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    begin = time.monotonic()
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - begin < 0.5  # and not at the next step of its loop
    session.communicate(timeout=10)
    assert session.returncode == 1


def test_its_end_waits_for_a_client_that_has_something_to_put_in_order(
    held: tuple[subprocess.Popen[bytes], Path],
) -> None:
    """frames.py: it says nothing, hears of the end, and closes when its program has ended."""
    process, path = held
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(path))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        _until(lambda: len(children.read_text().split()) == 2)
        process.terminate()
        assert client.recv(1) == b""
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    begin = time.monotonic()
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - begin < 1  # and not when it waits for nobody any more


def test_its_end_does_not_wait_for_long(held: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = held
    session = _session(path)
    assert session.stdout is not None
    session.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: len(children.read_text().split()) == 2)  # it is known that one has a session
    stuck = [int(child) for child in children.read_text().split()]
    for child in stuck:
        os.kill(child, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        process.terminate()
        assert process.wait(timeout=10) == 0
        assert 1.5 < time.monotonic() - begin < 4
    finally:
        for child in stuck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        session.communicate(timeout=10)
