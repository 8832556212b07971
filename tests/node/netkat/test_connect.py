"""netkat as a client, where the host's own netfilter lets nothing through."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

import pytest

from tests.node.netkat.wire import (
    HOST,
    PEER,
    ROUTER,
    Wire,
    accepted,
    answering,
    ended,
    received,
    state,
    unchanged,
)

pytestmark = pytest.mark.kernel
MEGABYTES = 1024 if os.environ.get("NETKAT_GIGABYTE") else 100


def said(one: socket.socket, words: bytes, release: threading.Event) -> None:
    """Say something, and keep the connection open."""
    one.sendall(words)
    release.wait(20)


def drop_all(wire: Wire, version: int = 4) -> None:
    """What the original's own tests do: neither way is open."""
    tool = "iptables" if version == 4 else "ip6tables"
    for where in (PEER[version], ROUTER[version]):
        wire.run("host", tool, "-A", "OUTPUT", "-d", where, "-j", "DROP")
        wire.run("host", tool, "-A", "INPUT", "-s", where, "-j", "DROP")


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 5, 1500, 300_000])
def test_tcp_gets_through_dropped_in_and_output(
    wire: Wire, version: int, size: int, attach: str
) -> None:
    drop_all(wire, version)
    before = state(wire)
    data = os.urandom(size)
    got: list[bytes] = []

    def talk(one: socket.socket) -> None:
        got.append(received(one))
        one.sendall(got[0][::-1])

    server = answering(wire.listening(version), talk)
    code, out, err = ended(wire.netkat("-N", PEER[version], "80", attach=attach), data)
    server.join(20)
    assert (code, err) == (0, "")
    assert got == [data]
    assert out == data[::-1]
    unchanged(wire, before)


def test_plain_nc_is_caught_where_netkat_is_not(wire: Wire) -> None:
    drop_all(wire)
    wire.listening()
    plain = wire.start("host", "nc", "-z", "-w", "1", PEER[4], "80")
    assert ended(plain)[0] == 1
    assert ended(wire.netkat("-z", PEER[4], "80"))[0] == 0


@pytest.mark.parametrize("version", [4, 6])
def test_udp_gets_through(wire: Wire, version: int) -> None:
    drop_all(wire, version)
    server = wire.listening(version, udp=True)
    client = wire.netkat("-u", "-w", "1", PEER[version], "80")
    assert client.stdin is not None
    client.stdin.write(b"question")
    client.stdin.flush()
    data, sender = server.recvfrom(100)
    assert (data, sender[0]) == (b"question", HOST[version])
    server.sendto(b"answer", sender)
    code, out, err = ended(client)
    assert (code, out, err) == (0, b"answer", "")


def test_datagrams_larger_than_the_mtu_go_both_ways(wire: Wire) -> None:
    for version in (4, 6):
        server = wire.listening(version, udp=True)
        client = wire.netkat("-u", "-w", "1", PEER[version], "80")
        assert client.stdin is not None
        client.stdin.write(b"q" * 9000)
        client.stdin.flush()
        data, sender = server.recvfrom(65536)
        assert data == b"q" * 9000
        server.sendto(b"a" * 9000, sender)
        code, out, err = ended(client)
        assert (code, out, err) == (0, b"a" * 9000, "")


def test_the_peer_refuses(wire: Wire) -> None:
    code, out, err = ended(wire.netkat(PEER[4], "80"))
    assert (code, out) == (1, b"")
    assert "Connection refused" in err


@pytest.mark.parametrize("version", [4, 6])
def test_an_icmp_error_reaches_the_udp_client(wire: Wire, version: int) -> None:
    drop_all(wire, version)
    code, _, err = ended(wire.netkat("-z", "-u", "-w", "5", PEER[version], "80"))
    assert code == 1
    assert "refused" in err


def test_a_router_says_that_the_host_is_unreachable(wire: Wire) -> None:
    wire.ip("router", "route", "add", "unreachable", "10.9.0.0/16")
    code, _, err = ended(wire.netkat("-w", "8", "10.9.0.1", "80"))
    assert code == 1
    assert "No route to host" in err  # not that there is no answer


def test_silence_ends_after_w_seconds(wire: Wire) -> None:
    wire.run("peer", "iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP")
    begun = time.monotonic()
    code, _, err = ended(wire.netkat("-w", "1", PEER[4], "80"))
    assert code == 1
    assert "no answer in 1 s" in err
    assert time.monotonic() - begun >= 1


def test_a_next_hop_that_nobody_has_is_an_error(wire: Wire) -> None:
    code, _, err = ended(wire.netkat("-w", "8", "10.1.0.99", "80"))
    assert code == 1
    assert "No route to host" in err


@pytest.mark.parametrize("half_close", [True, False])
def test_a_reply_two_seconds_after_the_end_of_input(wire: Wire, half_close: bool) -> None:
    def talk(one: socket.socket) -> None:
        if half_close:
            assert received(one) == b"x"
        else:
            assert one.recv(1) == b"x"
        threading.Event().wait(2)  # the server's own time
        one.sendall(b"late")

    answering(wire.listening(), talk)
    words = ["-N"] if half_close else []
    code, out, err = ended(wire.netkat(*words, PEER[4], "80"), b"x")
    assert (code, out, err) == (0, b"late", "")


def test_a_peer_that_ends_first_still_gets_all(wire: Wire) -> None:
    """Its end is that of one direction: more input than a socket holds comes after it."""
    listener, got = wire.listening(), []

    def talk(one: socket.socket) -> None:
        one.sendall(b"only this")
        one.shutdown(socket.SHUT_WR)
        got.append(received(one))

    server = answering(listener, talk)
    client = wire.netkat(PEER[4], "80")
    assert client.stdout is not None
    assert client.stdout.read(9) == b"only this"
    data = os.urandom(20_000_000)
    assert ended(client, data) == (0, b"", "")
    server.join(20)
    assert got == [data]


def test_a_peer_that_ends_while_nobody_types_is_the_end(wire: Wire) -> None:
    answering(wire.listening(), lambda one: one.sendall(b"bye"))
    code, out, err = ended(wire.netkat("-w", "1", PEER[4], "80"), None)
    assert (code, out, err) == (0, b"bye", "")


def test_at_a_terminal_the_peers_end_is_the_end(wire: Wire) -> None:
    answering(wire.listening(), lambda one: one.sendall(b"bye"))
    # Not after the silence, which is longer than `ended` waits.
    code, out, err = ended(wire.netkat("--terminal", "-w", "60", PEER[4], "80"), None)
    assert (code, out, err) == (0, b"bye", "")


def test_silence_after_the_end_of_input_ends_it(wire: Wire) -> None:
    release = threading.Event()
    answering(wire.listening(), lambda one: said(one, b"hello", release))
    code, out, _ = ended(wire.netkat("-w", "1", PEER[4], "80"), b"x")
    assert (code, out) == (0, b"hello")
    release.set()


def test_on_link_peers(wire: Wire) -> None:
    for version in (4, 6):
        drop_all(wire, version)
        answering(wire.listening(version, where="router"), lambda one: one.sendall(b"near"))
        code, out, err = ended(wire.netkat("-N", ROUTER[version], "80"))
        assert (code, out, err) == (0, b"near", "")


def test_a_source_port_of_ones_own(wire: Wire) -> None:
    seen: list[int] = []
    answering(wire.listening(), lambda one: seen.append(one.getpeername()[1]))
    assert ended(wire.netkat("-p", "4321", PEER[4], "80"))[0] == 0
    assert seen == [4321]


def test_a_source_port_that_the_host_uses_is_refused(wire: Wire) -> None:
    taken = wire.socket("host")
    taken.bind(("0.0.0.0", 4321))
    taken.listen()
    before = state(wire)
    code, _, err = ended(wire.netkat("-p", "4321", PEER[4], "80"))
    assert code == 1
    assert "TCP port 4321 is in use on this host" in err
    assert state(wire) == before


def test_the_port_is_held_while_it_runs(wire: Wire) -> None:
    release = threading.Event()
    answering(wire.listening(), lambda one: said(one, b"1", release))
    client = wire.netkat("-p", "4321", PEER[4], "80")
    assert client.stdout is not None
    assert client.stdout.read(1) == b"1"
    with pytest.raises(OSError, match="Address already in use"):
        wire.socket("host").bind((HOST[4], 4321))
    release.set()
    assert ended(client)[0] == 0
    wire.socket("host").bind((HOST[4], 4321))


def test_many_bytes_both_ways_keep_their_checksum(wire: Wire) -> None:
    """100 MB each way; 1 GB where NETKAT_GIGABYTE is set."""
    block = os.urandom(1 << 20)
    sums: list[str] = []

    def talk(one: socket.socket) -> None:
        seen = hashlib.sha256()
        while part := one.recv(1 << 20):
            seen.update(part)
        sums.append(seen.hexdigest())
        for _ in range(MEGABYTES):
            one.sendall(block)

    answering(wire.listening(), talk)
    client = wire.netkat("-N", "-w", "30", PEER[4], "80")
    assert client.stdin is not None
    assert client.stdout is not None
    expected, back = hashlib.sha256(), hashlib.sha256()
    for _ in range(MEGABYTES):
        client.stdin.write(block)
        expected.update(block)
    client.stdin.close()
    while part := client.stdout.read1(1 << 20):  # type: ignore[attr-defined]
        back.update(part)
    assert client.wait(60) == 0
    assert sums == [expected.hexdigest()]
    assert back.hexdigest() == expected.hexdigest()


def test_two_netkats_and_the_hosts_own_connection_to_one_server(wire: Wire) -> None:
    listener = wire.listening()
    own = wire.socket("host")
    own.connect((PEER[4], 80))
    own_there = accepted(wire, listener)
    before = state(wire)
    clients = [wire.netkat(PEER[4], "80") for _ in range(2)]
    there = [accepted(wire, listener) for _ in clients]
    for number, client in enumerate(clients):
        assert client.stdin is not None
        client.stdin.write(b"from %d" % number)
        client.stdin.flush()
    said = sorted(one.recv(100) for one in there)
    assert said == [b"from 0", b"from 1"]
    own.sendall(b"own")
    assert own_there.recv(100) == b"own"
    own_there.sendall(b"yours")
    assert own.recv(100) == b"yours"
    for one in there:
        one.sendall(b"for " + one.getpeername()[0].encode())
        one.close()
    for client in clients:
        code, out, _ = ended(client)
        assert (code, out) == (0, b"for 10.1.0.2")
    own.sendall(b"still here")
    assert own_there.recv(100) == b"still here"
    unchanged(wire, before)


def test_another_next_hop_without_a_route(wire: Wire) -> None:
    """The peer's address is on a second router's loopback: only --via leads there."""
    wire.ip("router", "addr", "add", "203.0.113.7/32", "dev", "lo")
    server = wire.socket("router")
    server.bind(("203.0.113.7", 80))
    server.listen()
    wire.ip("host", "route", "add", "blackhole", "203.0.113.7")
    before = state(wire)
    assert ended(wire.netkat("203.0.113.7", "80"))[0] == 1
    code, _, err = ended(wire.netkat("-z", "--via", ROUTER[4], "203.0.113.7", "80"))
    assert (code, err) == (0, "")
    mac = wire.run("router", "cat", "/sys/class/net/h0/address").strip()
    code, _, err = ended(wire.netkat("-z", "-i", "eth0", "--via", mac, "10.1.0.1", "81"))
    assert code == 1
    assert "refused" in err
    unchanged(wire, before)


def test_an_address_that_the_host_has_itself_is_refused_or_sent_out(wire: Wire) -> None:
    """As with kube-proxy's IPVS mode, where each node has every service address."""
    for where in ("host", "router"):
        wire.ip(where, "addr", "add", "203.0.113.7/32", "dev", "lo")
    server = wire.socket("router")
    server.bind(("203.0.113.7", 80))
    server.listen()
    code, _, err = ended(wire.netkat("-z", "203.0.113.7", "80"))
    assert code == 1
    assert "this host's own address" in err
    assert "--via" in err
    code, _, err = ended(wire.netkat("-z", "--via", ROUTER[4], "203.0.113.7", "80"))
    assert (code, err) == (0, "")
    mac = wire.run("router", "cat", "/sys/class/net/h0/address").strip()
    code, _, err = ended(wire.netkat("-z", "--via", mac, "203.0.113.7", "80"))
    assert (code, err) == (0, "")
