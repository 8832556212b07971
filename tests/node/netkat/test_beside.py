"""netkat beside other people's programs, and what is there after it however it ends."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.bpf.load import link_tcx_first, load_classifier
from kubectl_ebpfnet.node.host import netns
from tests.node.netkat.wire import (
    HOST,
    PEER,
    Wire,
    accepted,
    answering,
    attached,
    ended,
    programs,
    received,
    state,
    unchanged,
    until,
)

pytestmark = pytest.mark.kernel


def once(wire: Wire, *words: str, attach: str = "tcx") -> None:
    """A question and its answer get through."""
    answering(wire.listening(), lambda one: one.sendall(received(one).upper()))
    code, out, err = ended(wire.netkat("-N", *words, PEER[4], "80", attach=attach), b"abc")
    assert (code, out, err) == (0, b"ABC", "")


@contextmanager
def foreign_tcx(wire: Wire, code: Assembly, device: str = "eth0") -> Iterator[int]:
    """Somebody's tcx link at the head of the host's device."""
    program = load_classifier(code.program(), "foreign")
    try:
        with netns.inside(f"/run/netns/{wire.host}"):
            link = link_tcx_first(program, socket.if_nametoindex(device), syscall.TCX_INGRESS)
    except Unsupported as why:
        pytest.skip(str(why))
    finally:
        os.close(program)
    try:
        yield link
    finally:
        os.close(link)


def verdict(number: int) -> Assembly:
    """A program that says this of every packet."""
    code = Assembly()
    code.return_value(number)
    return code


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
def test_an_existing_clsact_and_its_programs_stay(wire: Wire, attach: str) -> None:
    wire.run("host", "tc", "qdisc", "add", "dev", "eth0", "clsact")
    filter_ = ["tc", "filter", "add", "dev", "eth0"]
    # Direct action, TC_ACT_OK: as Cilium's programs end, and nothing after it is asked.
    wire.run("host", *filter_, "ingress", "pref", "1", "bpf", "da", "bytecode", "1,6 0 0 0,")
    wire.run("host", *filter_, "egress", "pref", "3", "bpf", "da", "bytecode", "1,6 0 0 0,")
    before = state(wire)
    assert "bytecode" in str(before)
    once(wire, attach=attach)
    unchanged(wire, before)


def test_clsact_that_was_not_there_goes_again(wire: Wire) -> None:
    before = state(wire)
    assert "clsact" not in str(before)
    once(wire, attach="clsact")
    unchanged(wire, before)


def test_two_with_clsact_and_the_last_one_clears_up(wire: Wire) -> None:
    before = state(wire)
    listener = wire.listening()
    clients, there = [], []
    for _ in range(2):
        clients.append(wire.netkat(PEER[4], "80", attach="clsact"))
        there.append(accepted(wire, listener))
    assert len(attached(wire)) == 4
    for client, one in zip(clients, there, strict=True):  # the first to come is the first to go
        one.sendall(b"end")
        one.close()
        assert ended(client)[:2] == (0, b"end")
    unchanged(wire, before)


@pytest.mark.parametrize("answer", [0, 2], ids=["OK", "DROP"])
def test_a_foreign_tcx_program_that_ends_the_chain(wire: Wire, answer: int) -> None:
    with foreign_tcx(wire, verdict(answer)):
        before = state(wire)
        assert before[f"tcx {syscall.TCX_INGRESS}"]
        if answer == 2:  # then ARP replies for the host's own cache are lost too, not for netkat's
            assert ended(wire.start("host", "nc", "-z", "-w", "1", PEER[4], "80"))[0] == 1
        once(wire)
        unchanged(wire, before)


def test_a_foreign_tcx_program_that_redirects(wire: Wire) -> None:
    code = Assembly()
    code.set(asm.R1, 1)  # all to loopback's egress: as a redirect to a pod, it never comes back
    code.set(asm.R2, 0)
    code.call(asm.REDIRECT)
    code.exit()
    with foreign_tcx(wire, code):
        before = state(wire)
        once(wire)
        unchanged(wire, before)


def test_a_program_that_comes_later_runs_for_others_traffic(wire: Wire) -> None:
    """Ours says "next" to what is not its flow: a later program still decides about that."""
    release = answering(wire.listening(), lambda one: received(one) and None)
    with foreign_tcx(wire, verdict(2)):
        client = wire.netkat(PEER[4], "80", "-v", "-w", "3")
        assert client.stderr is not None
        assert b"tcx" in client.stderr.readline()
        assert b"connected" in client.stderr.readline()
        assert ended(wire.start("host", "nc", "-z", "-w", "1", PEER[4], "80"))[0] == 1
        assert ended(client, b"x")[0] == 0
    release.join(20)


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing(wire: Wire, number: int, attach: str) -> None:
    before = state(wire)
    listener = wire.listening()
    client = wire.netkat(PEER[4], "80", attach=attach)
    there = accepted(wire, listener)
    assert client.stdin is not None
    client.stdin.write(b"x")
    client.stdin.flush()
    assert there.recv(1) == b"x"
    ours = attached(wire)
    assert len(ours & programs()) == 2
    assert client.pid in processes(wire)
    client.send_signal(number)
    client.wait(20)
    with pytest.raises(ConnectionResetError):  # the peer is told, also by a process that is killed
        there.recv(1)
    listener.close()
    unchanged(wire, before)
    until(lambda: not ours & programs(), "a program is still loaded")
    until(lambda: not processes(wire), "the process that clears up is still there")
    once(wire, attach=attach)  # and the next one is not in its way


def processes(wire: Wire) -> list[int]:
    """Those in the host's network namespace."""
    said = subprocess.run(("ip", "netns", "pids", wire.host), check=True, capture_output=True)
    return [int(pid) for pid in said.stdout.split()]


def test_a_port_of_the_host_is_not_touched(wire: Wire) -> None:
    """The original's third fault: traffic of the host from the same server and port."""
    listener = wire.listening()
    own = wire.socket("host")
    own.connect((PEER[4], 80))
    there = accepted(wire, listener)
    client = wire.netkat(PEER[4], "80")
    kat_there = accepted(wire, listener)
    for n in range(50):
        own.sendall(b"%d" % n)
        assert there.recv(9) == b"%d" % n
        there.sendall(b"%d" % n)
        assert own.recv(9) == b"%d" % n
    kat_there.sendall(b"end")
    kat_there.close()
    assert ended(client)[:2] == (0, b"end")


def _connect4(to: str) -> int:
    """A cgroup program that turns each connect(2) to 10.2.0.2 to another address."""
    code = Assembly()
    code.copy(asm.R6, asm.R1)
    code.load(asm.WORD, asm.R0, asm.R6, 4)  # struct bpf_sock_addr: user_family, user_ip4, ...
    peer = asm.native(socket.inet_aton(PEER[4]))
    code.jump_if(asm.NE, asm.R0, peer, "as it is")
    code.set(asm.R0, asm.native(socket.inet_aton(to)))
    code.store_register(asm.WORD, asm.R6, 4, asm.R0)
    code.label("as it is")
    code.return_value(1)
    rows, license_ = syscall.buffer(code.program()), syscall.buffer(b"Apache-2.0\0")
    attr = struct.pack(
        "=IIQQIIQII16sII",
        18,
        len(code.program()) // 8,
        syscall.pointer(rows),
        syscall.pointer(license_),
        0,
        0,
        0,
        0,
        0,
        b"socket_lb",
        0,
        10,
    )  # fmt: skip  BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT
    return syscall.syscall(syscall.PROG_LOAD, attr, "load socket_lb")


def test_a_socket_load_balancer_does_not_see_it(wire: Wire, tmp_path: Path) -> None:
    """Cilium's translates connect(2) in every network namespace of the machine by default."""
    mount = subprocess.run(("mount", "-t", "cgroup2", "none", str(tmp_path)), capture_output=True)
    if mount.returncode:
        pytest.skip(f"no cgroup v2: {mount.stderr.decode()}")
    group = tmp_path / f"netkat-{os.getpid()}"
    try:
        group.mkdir()
        program, fd = _connect4(HOST[4]), os.open(group, os.O_RDONLY)
        link = syscall.syscall(
            syscall.LINK_CREATE, struct.pack("=IIII", program, fd, 10, 0), "attach"
        )
        try:
            shell = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))
            answering(wire.listening(), lambda one: one.sendall(b"peer"))
            plain = wire.start("host", *shell, "nc", "-z", "-w", "1", PEER[4], "80")
            assert ended(plain)[0] == 1  # it went to the host itself
            python = (str(Path(sys.executable)), "-m", "kubectl_ebpfnet.node.netkat")
            client = wire.start("host", *shell, *python, "-N", PEER[4], "80")
            assert ended(client) == (0, b"peer", "")
        finally:
            for one in (link, program, fd):
                os.close(one)
    finally:
        if group.exists():
            until(lambda: not (group / "cgroup.procs").read_text(), "somebody is in the cgroup")
            group.rmdir()
        subprocess.run(("umount", str(tmp_path)), check=True)
