"""netkat by the door of a node pod: the same, without Python's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kat_wire import PEER, ROOT, Wire, accepted, answering, ended, received, state, unchanged, until

pytestmark = pytest.mark.kernel
DOOR = ROOT / "kubectl_ebpfnet/node/kat/door.pl"
_HOLD = (
    "import pathlib, sys\n"
    "from kubectl_ebpfnet.node.hold import hold\n"
    "sys.exit(hold(60, pathlib.Path(sys.argv[1])))\n"
)


@pytest.fixture
def path(wire: Wire, tmp_path: Path) -> Iterator[Path]:
    """The socket of somebody who holds the door on the host."""
    found = tmp_path / "node.sock"
    holding = held(wire, found)
    yield found
    holding.terminate()
    assert holding.wait(20) == 0


def held(wire: Wire, path: Path, **env: str) -> subprocess.Popen[bytes]:
    """Somebody who holds the door."""
    argv = (sys.executable, "-c", _HOLD, str(path))
    holding = wire.start("host", *argv, env={**os.environ, **env})
    until(path.exists, "nobody holds the door")
    return holding


def children(pid: int) -> list[int]:
    """Processes that a process has started, or that were left to it."""
    said = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in said.split()]


def door(wire: Wire, path: Path, *words: str, **more: object) -> subprocess.Popen[bytes]:
    """netkat in a namespace that leads nowhere: only by the door it gets to the peer."""
    argv = ("perl", str(DOOR), *words)
    env = {**os.environ, "EBPFNET_NODE_SOCKET": str(path)}
    child = subprocess.Popen(
        ("unshare", "--net", *argv), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **more,
    )  # type: ignore[call-overload]  # fmt: skip
    wire.children.append(child)
    return child


def test_streams_words_and_exit_codes(wire: Wire, path: Path, tmp_path: Path) -> None:
    before = state(wire)
    answering(wire.listening(), lambda one: one.sendall(received(one).upper()))
    pcap = tmp_path / "ü seen.pcap"
    words = ("-N", "--pcap", pcap.name, PEER[4], "80")
    assert ended(door(wire, path, *words, cwd=tmp_path), b"abc") == (0, b"ABC", "")
    assert pcap.stat().st_size > 200
    code, out, err = ended(door(wire, path, PEER[4], "81"))
    assert (code, out) == (1, b"")
    assert "Connection refused" in err
    code, out, err = ended(door(wire, path, "--exec", PEER[4], "80", "--", "sh", "-c", "exit 9"))
    assert (code, out, err) == (9, b"", "")
    unchanged(wire, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_whoever_is_at_the_door(wire: Wire, path: Path, number: int) -> None:
    before = state(wire)
    listener = wire.listening()
    client = door(wire, path, PEER[4], "80")
    there = accepted(wire, listener)
    assert state(wire) != before
    client.send_signal(number)
    client.wait(20)
    with pytest.raises(ConnectionResetError):
        there.recv(1)
    unchanged(wire, before)


def test_where_nobody_holds_the_door_it_starts_itself(wire: Wire, tmp_path: Path) -> None:
    env = {
        **os.environ, "EBPFNET_NODE_SOCKET": str(tmp_path / "none"), "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    answering(wire.listening(), lambda one: one.sendall(b"hello"))
    child = wire.start("host", "perl", str(DOOR), "-N", PEER[4], "80", env=env)
    assert ended(child) == (0, b"hello", "")


def test_closed_streams_are_closed_there_too(wire: Wire, path: Path) -> None:
    answering(wire.listening(), lambda one: one.sendall(b"hello"))
    argv = ("sh", "-c", 'exec perl "$@" <&-', "sh", str(DOOR), "-N", PEER[4], "80")
    env = {**os.environ, "EBPFNET_NODE_SOCKET": str(path)}
    child = wire.start("peer", *argv, env=env)
    assert ended(child) == (0, b"hello", "")


def test_connections_while_others_hold_the_lock_of_rtnetlink(wire: Wire, path: Path) -> None:
    """The program runs later then than the neighbour answers for the first time."""
    before = state(wire)
    listener = wire.listening()
    for _ in range(6):
        answering(listener, lambda one: one.sendall(b"hello"))
    children = [door(wire, path, "-N", PEER[4], "80") for _ in range(6)]
    assert [ended(child) for child in children] == [(0, b"hello", "")] * 6
    unchanged(wire, before)


def test_the_end_of_the_pod_waits_for_whoever_removes_the_filter(
    wire: Wire, tmp_path: Path
) -> None:
    """With its first process the container's others are killed: it must not be there too early."""
    before = state(wire)
    holding = held(wire, tmp_path / "node.sock", EBPFNET_NO_TCX="1")
    listener = wire.listening()
    client = door(wire, tmp_path / "node.sock", PEER[4], "80")
    accepted(wire, listener)
    (removes,) = [grandchild for child in children(holding.pid) for grandchild in children(child)]
    until(lambda: len(os.listdir(f"/proc/{removes}/fd")) == 1, "it does not wait yet")
    os.kill(removes, signal.SIGSTOP)  # it is slow
    try:
        holding.terminate()
        assert ended(client, None)[0] == 1
        until(lambda: children(holding.pid) == [removes], "somebody else is still there")
        with pytest.raises(subprocess.TimeoutExpired):
            holding.wait(0.3)
    finally:
        os.kill(removes, signal.SIGCONT)
    begin = time.monotonic()
    assert holding.wait(20) == 0
    assert time.monotonic() - begin < 1
    assert "clsact" not in str(state(wire))
    unchanged(wire, before)


def test_what_removes_the_filter_of_one_that_was_killed_is_waited_for(
    wire: Wire, tmp_path: Path
) -> None:
    before = state(wire)
    holding = held(wire, tmp_path / "node.sock", EBPFNET_NO_TCX="1")
    listener = wire.listening()
    client = door(wire, tmp_path / "node.sock", PEER[4], "80")
    accepted(wire, listener)
    assert len(children(holding.pid)) == 2  # it, and the one that waits for the next
    client.kill()
    client.wait(20)
    unchanged(wire, before)
    until(lambda: len(children(holding.pid)) == 1, "a process that has ended is not waited for")
    holding.terminate()
    assert holding.wait(20) == 0
