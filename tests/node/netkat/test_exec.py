"""netkat --exec, -d and --pcap."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.node.netkat.wire import (
    DEADLINE_S,
    HOST,
    PEER,
    Wire,
    accepted,
    answering,
    ended,
    received,
    state,
    unchanged,
    until,
)

pytestmark = pytest.mark.kernel


def test_a_program_speaks_to_the_peer_from_the_hosts_address(wire: Wire) -> None:
    wire.run("host", "iptables", "-A", "INPUT", "-s", PEER[4], "-j", "DROP")
    before = state(wire)
    listener = wire.listening()
    for n in range(3):
        seen: list[str] = []

        def talk(one: socket.socket, seen: list[str] = seen) -> None:
            seen.append(one.getpeername()[0])
            one.sendall(received(one).upper())

        answering(listener, talk)
        child = wire.netkat(PEER[4], "80", "--exec", "--", "nc", "-N", PEER[4], "80")
        assert ended(child, b"abc%d" % n) == (0, b"ABC%d" % n, "")
        assert seen == [HOST[4]]
    unchanged(wire, before)


def test_the_programs_words_and_exit_code(wire: Wire) -> None:
    shell = ("sh", "-c", 'echo "$NETKAT_ADDRESS $NETKAT_PORT $1"; exit 7', "sh", "a  b; $HOME")
    code, out, err = ended(wire.netkat("--exec", PEER[4], "80", "--", *shell))
    assert (code, out, err) == (7, b"198.18.67.241 80 a  b; $HOME\n", "")
    code, _, err = ended(wire.netkat("--exec", PEER[4], "80", "--", "no-such-program"))
    assert code == 127
    assert "no-such-program: No such file" in err
    code, _, _ = ended(wire.netkat("--exec", PEER[4], "80", "--", "sh", "-c", "kill -9 $$"))
    assert code == 137


@pytest.mark.parametrize("name", ["", "os.environ['NETKAT_ADDRESS']"])
def test_many_connections_of_one_program(wire: Wire, name: str) -> None:
    listener = wire.listening()
    program = (
        "import socket, os\n"
        f"name = {name or repr(PEER[4])}\n"
        "a = [socket.create_connection((name, 80), 5) for _ in range(20)]\n"
        "print(len({s.getsockname()[1] for s in a}))\n"
    )
    child = wire.netkat("--exec", PEER[4], "80", "--", sys.executable, "-c", program)
    assert ended(child) == (0, b"20\n", "")
    assert accepted(wire, listener)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_programs_children_end_with_netkat(wire: Wire, number: int) -> None:
    before = state(wire)
    mark = f"netkat-{wire.host}-child"
    # A daemon: in a session of its own, without our streams, and its parent has gone.
    daemon = f"setsid bash -c 'exec -a {mark} sleep 300' </dev/null >/dev/null 2>&1 &"
    shell = ("bash", "-c", f"{daemon} echo up; read x")
    child = wire.netkat("--exec", PEER[4], "80", "--", *shell)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"

    def alive() -> bool:
        return subprocess.run(("pgrep", "-f", f"^{mark}"), capture_output=True).returncode == 0

    until(alive, "the program's child did not start")
    child.send_signal(number)
    child.wait(DEADLINE_S)
    until(lambda: not alive(), "the program's child is still there")
    unchanged(wire, before)


def test_debug_prints_each_packet_and_pcap_keeps_it(wire: Wire, tmp_path: Path) -> None:
    answering(wire.listening(), lambda one: one.sendall(received(one)))
    file = tmp_path / "seen.pcap"
    code, out, err = ended(wire.netkat("-d", "-N", "--pcap", str(file), PEER[4], "80"), b"hello")
    assert (code, out) == (0, b"hello")
    there, back = rf"10\.1\.0\.2:\d+ -> {PEER[4]}:80", rf"{PEER[4]}:80 -> 10\.1\.0\.2:\d+"
    stamps = r"TS:true TSVal:\d+ TSEcr:\d+"
    expected = [
        r"send arp 10\.1\.0\.2 \([0-9a-f:]{17}\) -> 10\.1\.0\.1 \(00:00:00:00:00:00\) valid:true",
        r"recv arp 10\.1\.0\.1 \([0-9a-f:]{17}\) -> 10\.1\.0\.2 \([0-9a-f:]{17}\) valid:true",
        rf"send tcp {there} len:0 id:[0-9a-f]{{4}} flags: S seqnum: \d+ ack: 0 win: \d+"
        rf" xsum:0x[0-9a-f]+ options: {{MSS:1460 WS:\d+ {stamps} SACKPermitted:true}}",
        rf"recv tcp {back} len:0 id:0000 flags: SA seqnum: \d+ ack: \d+ win: \d+"
        rf" xsum:0x[0-9a-f]+ options: {{MSS:1460 WS:\d+ {stamps} SACKPermitted:true}}",
        rf"send tcp {there} len:5 id:[0-9a-f]{{4}} flags: PA .*{{{stamps} SACKBlocks:\[\]}}",
        rf"recv tcp {back} len:5 .* flags: PA ",
        rf"send tcp {there} len:0 .* flags: FA ",
        rf"recv tcp {back} len:0 .* flags: FA ",
    ]
    for pattern in expected:
        assert re.search(f"^{pattern}", err, re.MULTILINE), f"{pattern} is not in\n{err}"
    said = subprocess.run(
        ("tcpdump", "-nn", "-v", "-r", str(file)), capture_output=True, text=True, check=True
    ).stdout
    assert said.count(" > ") == err.count(" tcp ")
    assert "198.1" not in said + err  # the stand-in is nobody's business
    incoming = [row for row in said.splitlines() if f"{PEER[4]}.80 >" in row]
    assert incoming
    # What came in has its final checksums: tcpdump finds the address put back in order.
    assert all("bad cksum" not in row for row in incoming)


def test_packets_that_nobody_takes_in_time_are_counted(wire: Wire, tmp_path: Path) -> None:
    size, arrived = 160 << 20, threading.Event()

    def take(one: socket.socket) -> None:
        while one.recv(1 << 20):
            pass
        arrived.set()

    answering(wire.listening(), take)
    os.mkfifo(tmp_path / "pcap")
    reader = os.open(tmp_path / "pcap", os.O_RDONLY | os.O_NONBLOCK)
    child = wire.netkat("-N", "--pcap", str(tmp_path / "pcap"), PEER[4], "80")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ended, child, bytes(size))
        assert arrived.wait(DEADLINE_S)  # a full pipe stops the capture, not the connection
        os.set_blocking(reader, True)
        captured = sum(map(len, iter(lambda: os.read(reader, 1 << 20), b"")))
        code, _, err = running.result(DEADLINE_S)
    os.close(reader)
    assert code == 0
    assert 65536 < captured < size
    assert re.fullmatch(r"netkat: [1-9]\d* packets were not captured\n", err)
