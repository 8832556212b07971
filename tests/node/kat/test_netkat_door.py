"""netkat by the door of a node pod: the same, without Python's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
    holding = wire.start("host", sys.executable, "-c", _HOLD, str(found))
    until(found.exists, "nobody holds the door")
    yield found
    holding.terminate()
    assert holding.wait(20) == 0


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
