"""A clsact filter whose netkat was killed with the child that removes it: inert, and swept."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.bpf.load import load_classifier
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.redirect import clsact
from kubectl_ebpfnet.node.netlink.rtnetlink import change
from tests.node.netkat.wire import (
    HOST,
    PEER,
    Wire,
    accepted,
    answering,
    ended,
    programs,
    received,
    state,
    unchanged,
    until,
)

pytestmark = pytest.mark.kernel
SOON_S = 0.9  # less than a second, after which TCP would try again


def filters(wire: Wire) -> dict[str, int]:
    """The filters at the ingress of the host's device: name → the program's id."""
    said = wire.run("host", "tc", "filter", "show", "dev", "eth0", "ingress")
    found = re.findall(r"handle 0x\S+ (\S+) direct-action .* id (\d+)", said)
    return {name: int(number) for name, number in found}


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    said = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in said.split()]


def killed_at_once(wire: Wire, netkat: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a netkat and to its child, as to a whole cgroup: the child goes first."""
    (child,) = children(netkat.pid)
    until(lambda: len(os.listdir(f"/proc/{child}/fd")) == 1, "it does not wait yet")
    os.kill(child, signal.SIGKILL)
    netkat.kill()
    netkat.wait(20)
    left = [name for name in filters(wire) if name.startswith(f"netkat:{netkat.pid}:")]
    assert len(left) == 1


def left_by_a_client(wire: Wire, listener: socket.socket) -> int:
    """Have a filter left over; the local port of its flow to the listener."""
    netkat = wire.netkat(PEER[4], "80", attach="clsact")
    there = accepted(wire, listener)
    port: int = there.getpeername()[1]
    killed_at_once(wire, netkat)
    with pytest.raises(ConnectionResetError):
        there.recv(1)
    return port


def test_the_hosts_own_connection_from_that_port_passes_at_once(wire: Wire) -> None:
    before = state(wire)
    listener = wire.listening()
    port = left_by_a_client(wire, listener)
    own = wire.socket("host")
    own.settimeout(SOON_S)
    own.bind((HOST[4], port))
    own.connect((PEER[4], 80))
    there = accepted(wire, listener)
    there.sendall(b"here")
    assert own.recv(4) == b"here"
    gate = set(filters(wire).values())
    assert len(gate & programs()) == 1
    there.close()
    own.close()
    netkat = wire.netkat("-N", PEER[4], "80", attach="clsact")
    there = accepted(wire, listener)
    assert len(filters(wire)) == 1  # the one left over is gone by now
    there.sendall(b"here")
    there.close()
    assert ended(netkat) == (0, b"here", "")
    unchanged(wire, before)
    until(lambda: not gate & programs(), "a program is still loaded")


def test_a_server_of_the_host_on_that_port_is_reached_at_once(wire: Wire) -> None:
    before = state(wire)
    netkat = wire.netkat("-l", "-v", HOST[4], "8080", attach="clsact")
    assert netkat.stderr is not None
    assert b"listening" in netkat.stderr.readline()
    killed_at_once(wire, netkat)
    listener = wire.listening(port=8080, where="host")
    own = wire.socket("peer")
    own.settimeout(SOON_S)
    own.connect((HOST[4], 8080))
    accepted(wire, listener).sendall(b"here")
    assert own.recv(4) == b"here"
    with netns.inside(f"/run/netns/{wire.host}"):
        clsact.remove_stale_filters()
    unchanged(wire, before)


def test_whoever_takes_theirs_away_takes_away_what_was_left_meanwhile(wire: Wire) -> None:
    before = state(wire)
    listener = wire.listening()
    staying = wire.netkat(PEER[4], "80", attach="clsact")
    there = accepted(wire, listener)
    going = wire.netkat(PEER[4], "80", attach="clsact")
    accepted(wire, listener)
    killed_at_once(wire, going)
    assert len(filters(wire)) == 2
    there.sendall(b"end")
    there.close()
    assert ended(staying)[:2] == (0, b"end")
    unchanged(wire, before)


def add_filter(wire: Wire, name: str) -> None:
    """Add a filter of this name to the host's device, which does nothing."""
    code = Assembly()
    code.return_value(-1)
    program = load_classifier(code.program(), "another")
    try:
        with netns.inside(f"/run/netns/{wire.host}"):
            index = socket.if_nametoindex("eth0")
            change([changes.bpf_filter(index, 7, 1, program, name)])
    finally:
        os.close(program)


def ticks(pid: int) -> str:
    """When a process was started, as /proc/PID/stat has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize("whose", ["of a live one", "of another PID namespace", "of somebody"])
def test_a_filter_that_may_be_in_use_stays_and_so_does_its_qdisc(wire: Wire, whose: str) -> None:
    ours = os.stat("/proc/self/ns/pid").st_ino
    gone = subprocess.Popen(("true",))
    gone.wait()
    name = {
        "of a live one": f"netkat:{os.getpid()}:{ticks(os.getpid())}:{ours}:clsact",
        "of another PID namespace": f"netkat:{gone.pid}:12345:{ours + 1}:clsact",
        "of somebody": f"netkat-like:{gone.pid}:12345:{ours}:clsact",
    }[whose]
    wire.run("host", "tc", "qdisc", "add", "dev", "eth0", "clsact")
    add_filter(wire, name)
    before = state(wire)
    assert name in str(before)
    left_by_a_client(wire, wire.listening(port=80))
    with netns.inside(f"/run/netns/{wire.host}"):
        clsact.remove_stale_filters()
    unchanged(wire, before)


@pytest.mark.parametrize("alone", [True, False])
def test_a_pid_that_is_another_process_by_now_is_gone(wire: Wire, alone: bool) -> None:
    """And the qdisc is removed only where a netkat has put it there."""
    before = state(wire)
    wire.run("host", "tc", "qdisc", "add", "dev", "eth0", "clsact")
    if not alone:
        before = state(wire)
    namespace, start = os.stat("/proc/self/ns/pid").st_ino, int(ticks(os.getpid())) - 1
    name = f"netkat:{os.getpid()}:{start}:{namespace}{':clsact' if alone else ''}"
    add_filter(wire, name)
    answering(wire.listening(), lambda one: one.sendall(received(one).upper()))
    code, out, err = ended(wire.netkat("-N", PEER[4], "80", attach="clsact"), b"abc")
    assert (code, out, err) == (0, b"ABC", "")
    unchanged(wire, before)


def test_the_first_process_of_a_pod_sweeps(wire: Wire, tmp_path: Path) -> None:
    before = state(wire)
    left_by_a_client(wire, wire.listening())
    hold = (
        "import pathlib, sys\n"
        "from kubectl_ebpfnet.node.server.zygote import serve_sessions\n"
        "sys.exit(serve_sessions(60, pathlib.Path(sys.argv[1])))\n"
    )
    holding = wire.start("host", sys.executable, "-c", hold, str(tmp_path / "node.sock"))
    unchanged(wire, before)
    holding.terminate()
    assert holding.wait(20) == 0


def test_many_that_come_and_go_at_once_leave_no_qdisc(wire: Wire) -> None:
    """One must not remove the qdisc while another one adds its filter."""
    before = state(wire)
    code = Assembly()
    code.return_value(-1)
    program = load_classifier(code.program(), "netkat_in")
    pids = []
    try:
        for _ in range(3):
            pid = os.fork()
            if not pid:
                _come_and_go(f"/run/netns/{wire.host}", program)
            pids.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    finally:
        os.close(program)
    unchanged(wire, before)


def _come_and_go(where: str, program: int) -> None:
    """In a process of its own, which ends with 0 when no filter was gone before its end."""
    code = 1
    try:
        netns.enter(where)
        index = socket.if_nametoindex("eth0")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            one = clsact.Filter(program, index)
            said = subprocess.run(
                ("tc", "filter", "show", "dev", "eth0", "ingress"), capture_output=True, check=True
            )
            assert f"netkat:{os.getpid()}:".encode() in said.stdout
            one.remove()
        code = 0
    finally:
        os._exit(code)
