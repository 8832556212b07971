"""netkat as a server: clients reach it where the host's own netfilter lets nothing in."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

from tests.node.netkat.wire import (
    DEADLINE_S,
    HOST,
    PEER,
    ROUTER,
    Wire,
    ended,
    received,
    state,
    unchanged,
)

pytestmark = pytest.mark.kernel
ANY = {4: "0.0.0.0", 6: "::"}


def listening(wire: Wire, *words: str, attach: str = "tcx") -> subprocess.Popen[bytes]:
    """netkat -l, and it says that it listens."""
    child = wire.netkat("-v", "-l", *words, attach=attach)
    assert child.stderr is not None
    assert b"listening on" in child.stderr.readline()
    return child


def drop_all(wire: Wire, version: int) -> None:
    """Nobody may come in or go out."""
    tool = "iptables" if version == 4 else "ip6tables"
    for where in (PEER[version], ROUTER[version]):
        wire.run("host", tool, "-A", "INPUT", "-s", where, "-j", "DROP")
        wire.run("host", tool, "-A", "OUTPUT", "-d", where, "-j", "DROP")


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("any_address", [False, True])
def test_a_client_behind_the_gateway(
    wire: Wire, version: int, attach: str, any_address: bool
) -> None:
    drop_all(wire, version)
    before = state(wire)
    address = ANY[version] if any_address else HOST[version]
    server = listening(wire, address, "90", attach=attach)
    client = wire.socket("peer", version)
    client.connect((HOST[version], 90))
    client.sendall(b"question")
    assert server.stdin is not None
    server.stdin.write(b"answer")
    server.stdin.flush()
    assert client.recv(100) == b"answer"
    client.shutdown(socket.SHUT_WR)
    code, out, err = ended(server)
    assert (code, out, err) == (0, b"question", "")
    assert received(client) == b""
    unchanged(wire, before)


def test_a_client_on_the_link(wire: Wire) -> None:
    for version in (4, 6):
        server = listening(wire, HOST[version], "90")
        client = wire.start("router", "nc", "-N", HOST[version], "90")
        assert client.stdin is not None
        client.stdin.write(b"near")
        client.stdin.close()
        assert ended(server)[:2] == (0, b"near")
        assert client.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_udp(wire: Wire, version: int) -> None:
    drop_all(wire, version)
    server = listening(wire, "-u", "-w", "1", HOST[version], "90")
    client = wire.socket("peer", version, udp=True)
    client.sendto(b"question", (HOST[version], 90))
    assert server.stdin is not None
    server.stdin.write(b"answer")
    server.stdin.flush()
    assert client.recvfrom(100)[0] == b"answer"
    assert ended(server)[:2] == (0, b"question")


def test_one_client_after_the_other(wire: Wire) -> None:
    server = listening(wire, "-k", HOST[4], "90")
    assert server.stdout is not None
    for n in range(3):
        client = wire.socket("peer")
        client.connect((HOST[4], 90))
        client.sendall(b"%d" % n)
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b""
        assert server.stdout.read(1) == b"%d" % n
    server.terminate()
    assert server.wait(DEADLINE_S) == -15


def test_udp_from_many(wire: Wire) -> None:
    server = listening(wire, "-u", "-k", HOST[4], "90")
    assert server.stdout is not None
    assert server.stdin is not None
    for where in ("peer", "router", "peer"):
        client = wire.socket(where, udp=True)
        client.sendto(b"x", (HOST[4], 90))
        assert server.stdout.read(1) == b"x"
        server.stdin.write(b"you")
        server.stdin.flush()
        assert client.recvfrom(9)[0] == b"you"
    server.terminate()
    assert server.wait(DEADLINE_S) == -15


def test_nobody_comes_in_time(wire: Wire) -> None:
    begun = time.monotonic()
    server = listening(wire, "-w", "1", HOST[4], "90")
    code, out, err = ended(server)
    assert (code, out) == (1, b"")
    assert "nobody came in 1 s" in err
    assert 1 <= time.monotonic() - begun < 4


def test_a_port_that_the_host_serves_is_refused(wire: Wire) -> None:
    wire.listening(port=90, where="host")
    code, _, err = ended(wire.netkat("-l", HOST[4], "90"))
    assert code == 1
    assert "TCP port 90 is in use on this host" in err


def test_an_address_of_somebody_else_is_refused(wire: Wire) -> None:
    code, _, err = ended(wire.netkat("-l", PEER[4], "90"))
    assert code == 1
    assert "no address of this host" in err
    code, _, err = ended(wire.netkat("-l", "127.0.0.1", "90"))
    assert code == 1
    assert "loopback" in err


def test_a_slow_sender_is_not_cut_off(wire: Wire) -> None:
    """Input ended long ago, and yet silence is no end: the client has not hung up."""
    server = listening(wire, HOST[4], "90")
    assert server.stdin is not None
    server.stdin.close()
    client = wire.socket("peer")
    client.connect((HOST[4], 90))
    client.sendall(b"a")
    time.sleep(6)  # longer than the default of -w, which is what is tested
    client.sendall(b"b")
    client.shutdown(socket.SHUT_WR)
    assert ended(server, None)[:2] == (0, b"ab")
