"""netkat as a session of a node pod: a fork of the pod's first process, with the exec's streams."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.server import connect
from tests.node.netkat.wire import (
    DEADLINE_S,
    HOST,
    PEER,
    ROUTER,
    Wire,
    accepted,
    answering,
    received,
    state,
    unchanged,
    until,
)

pytestmark = pytest.mark.kernel
_ARP = 0x0806  # ETH_P_ARP
_ASKS = (b"\0\1", socket.inet_aton(HOST[4]), socket.inet_aton(ROUTER[4]))
_NETKAT = ("netkat", frames.OPTION)
_HOLD = (
    "import pathlib, sys\n"
    "from kubectl_ebpfnet.node.server.zygote import serve_sessions\n"
    "sys.exit(serve_sessions(60, pathlib.Path(sys.argv[1])))\n"
)


def socket_in(folder: Path) -> Path:
    """Where the image's node side listens; its folder is made."""
    (folder / "image").mkdir()
    return folder / "image" / "node.sock"


@pytest.fixture
def path(wire: Wire, tmp_path: Path) -> Iterator[Path]:
    """The socket of a node pod's first process, which runs on the host."""
    found = socket_in(tmp_path)
    holding = held(wire, found)
    yield found
    holding.terminate()
    assert holding.wait(20) == 0


def held(wire: Wire, path: Path, **env: str) -> subprocess.Popen[bytes]:
    """A node pod's first process."""
    argv = (sys.executable, "-c", _HOLD, str(path))
    holding = wire.start("host", *argv, env={**os.environ, **env})
    until(path.exists, "the first process does not listen")
    return holding


def children(pid: int) -> list[int]:
    """Processes that a process has started, or that were left to it."""
    said = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in said.split()]


def exec_(wire: Wire, path: Path, *words: str) -> subprocess.Popen[bytes]:
    """What an exec starts, in a namespace that leads nowhere: only the first process's does."""
    argv = (sys.executable, "-I", "-S", str(connect.__file__), "0", *_NETKAT, *words)
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        ("unshare", "--net", *argv), stdin=pipe, stdout=pipe, stderr=pipe,
        env={**os.environ, "EBPFNET_NODE_FOLDER": str(path.parents[1])},
    )  # fmt: skip
    wire.children.append(child)
    return child


def ended(child: subprocess.Popen[bytes], stdin: bytes = b"") -> tuple[int, bytes, str, bytes]:
    """(exit code, stdout, stderr, --pcap) at its end; stdin goes in frames and stays open."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already
        if stdin:
            child.stdin.write(frames.frame(frames.Kind.DATA, frames.PROGRAM, stdin))
        child.stdin.write(frames.frame(frames.Kind.END, frames.PROGRAM))
        child.stdin.flush()
    out, err = child.stdout.read(), child.stderr.read()
    code = child.wait(DEADLINE_S)
    cut = list(frames.FrameReader("stderr").feed(err))
    text, pcap = (
        b"".join(each.payload for each in cut if each[:2] in wanted)
        for wanted in (
            ((frames.Kind.STDERR, frames.PROGRAM), (frames.Kind.END, frames.SESSION)),
            ((frames.Kind.DATA, frames.PACKETS),),
        )
    )
    return code, out, text.decode(), pcap


def test_streams_words_and_exit_codes(wire: Wire, path: Path) -> None:
    before = state(wire)
    answering(wire.listening(), lambda one: one.sendall(received(one).upper()))
    words = ("-N", "--pcap", f"/proc/self/fd/{frames.PCAP_FD}", PEER[4], "80")
    code, out, err, pcap = ended(exec_(wire, path, *words), b"abc")
    assert (code, out, err) == (0, b"ABC", "")
    assert len(pcap) > 200
    code, out, err, _ = ended(exec_(wire, path, PEER[4], "81"))
    assert (code, out) == (1, b"")
    assert "Connection refused" in err
    words = ("--exec", PEER[4], "80", "--", "sh", "-c", "echo ü; exit 9")
    assert ended(exec_(wire, path, *words)) == (9, "ü\n".encode(), "", b"")
    unchanged(wire, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_what_the_exec_started(wire: Wire, path: Path, number: int) -> None:
    before = state(wire)
    listener = wire.listening()
    client = exec_(wire, path, PEER[4], "80")
    there = accepted(wire, listener)
    assert state(wire) != before
    client.send_signal(number)
    client.wait(20)
    with pytest.raises(ConnectionResetError):
        there.recv(1)
    unchanged(wire, before)


def test_connections_while_others_hold_the_lock_of_rtnetlink(wire: Wire, path: Path) -> None:
    """None asks for its next hop before its program runs: the first answer would be lost."""
    before = state(wire)
    listener = wire.listening()
    for _ in range(6):
        answering(listener, lambda one: one.sendall(b"hello"))
    with netns.inside(f"/run/netns/{wire.router}"):
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ARP))
    with seen:
        clients = [exec_(wire, path, "-N", PEER[4], "80") for _ in range(6)]
        assert [ended(one)[:3] for one in clients] == [(0, b"hello", "")] * 6
        seen.setblocking(False)
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while packet := seen.recv(100):
                # struct arphdr, and Ethernet's addresses behind it: a request, and who asks whom
                asked += (packet[6:8], packet[14:18], packet[24:28]) == _ASKS
        assert asked == 6
    unchanged(wire, before)


def test_the_end_of_the_pod_waits_for_whoever_removes_the_filter(
    wire: Wire, tmp_path: Path
) -> None:
    """With its first process the container's others are killed: it must not be there too early."""
    before = state(wire)
    holding = held(wire, path := socket_in(tmp_path), EBPFNET_NO_TCX="1")
    listener = wire.listening()
    client = exec_(wire, path, PEER[4], "80")
    accepted(wire, listener)
    [session] = children(holding.pid)
    [netkat] = children(session)
    [removes] = children(netkat)
    until(lambda: len(os.listdir(f"/proc/{removes}/fd")) == 1, "it does not wait yet")
    os.kill(removes, signal.SIGSTOP)  # it is slow
    try:
        holding.terminate()
        code, _, err, _ = ended(client)
        assert (code, err) == (143, "the session ends: the node pod is taken away")
        until(lambda: children(holding.pid) == [removes], "somebody else is still there")
        with pytest.raises(subprocess.TimeoutExpired):
            holding.wait(0.3)
    finally:
        os.kill(removes, signal.SIGCONT)
    assert holding.wait(20) == 0
    assert "clsact" not in str(state(wire))
    unchanged(wire, before)


def test_what_removes_the_filter_of_one_that_was_killed_is_waited_for(
    wire: Wire, tmp_path: Path
) -> None:
    before = state(wire)
    holding = held(wire, path := socket_in(tmp_path), EBPFNET_NO_TCX="1")
    listener = wire.listening()
    client = exec_(wire, path, PEER[4], "80")
    accepted(wire, listener)
    assert len(children(holding.pid)) == 1
    client.kill()
    client.wait(20)
    unchanged(wire, before)
    until(lambda: not children(holding.pid), "a process that has ended is not waited for")
    holding.terminate()
    assert holding.wait(20) == 0
