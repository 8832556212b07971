"""netkat over wires that are not perfect, and over devices that are not Ethernet cards."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
    ROUTER,
    Wire,
    accepted,
    answering,
    ended,
    received,
    state,
    tunnel,
    unchanged,
)

pytestmark = pytest.mark.kernel


def echo(wire: Wire, data: bytes, *words: str, to: str = PEER[4]) -> None:
    """The peer gets the data, and it comes back as it was."""
    server = wire.socket("peer", 6 if ":" in to else 4)
    server.bind((to, 80))
    server.listen()
    got: list[bytes] = []

    def talk(one: socket.socket) -> None:
        got.append(received(one))
        one.sendall(got[0])

    answering(server, talk)
    code, out, err = ended(wire.netkat("-N", "-w", "20", *words, to, "80"), data)
    server.close()
    assert (code, err) == (0, "")
    assert got == [data]
    assert out == data


def test_a_wire_that_loses_and_reorders(wire: Wire) -> None:
    """One packet of a hundred is lost, one of twenty comes after its successor."""
    dice, held, counts = random.Random(7), [], {"lost": 0, "late": 0}

    def handling(packet: bytes) -> list[bytes]:
        if dice.random() < 0.01:
            counts["lost"] += 1
            return []
        if not held and dice.random() < 0.05:
            counts["late"] += 1
            held.append(packet)
            return []
        out = [packet, *held]
        held.clear()
        return out

    with tunnel(wire, "router", "10.3.0", handling):
        wire.ip("peer", "route", "replace", "default", "via", "10.3.0.1")
        echo(wire, os.urandom(3_000_000), to="10.3.0.2")
    assert counts["lost"] > 5
    assert counts["late"] > 20


@pytest.mark.parametrize("version", [4, 6])
def test_a_smaller_mtu_on_the_way(wire: Wire, version: int) -> None:
    """The router says "too big"; the host's own netfilter drops that, and netkat hears it."""
    wire.ip("router", "link", "set", "p0", "mtu", "1400")
    icmp = ("iptables", "icmp") if version == 4 else ("ip6tables", "ipv6-icmp")
    wire.run("host", icmp[0], "-A", "INPUT", "-p", icmp[1], "-s", ROUTER[version], "-j", "DROP")
    wire.run("router", *["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"])
    listener = wire.listening(version)
    got: list[bytes] = []

    def talk(one: socket.socket) -> None:
        got.append(received(one))
        one.sendall(b"all there")

    answering(listener, talk)
    data = os.urandom(1_000_000)
    code, out, err = ended(wire.netkat("-N", "-w", "10", PEER[version], "80"), data)
    assert (code, out, err) == (0, b"all there", "")
    assert got == [data]


@pytest.mark.parametrize("version", [4, 6])
def test_ip_options_and_extension_headers(wire: Wire, version: int) -> None:
    """What the peer sends has them between the IP header and TCP's."""
    drop = "iptables" if version == 4 else "ip6tables"
    wire.run("host", drop, "-A", "INPUT", "-s", PEER[version], "-j", "DROP")
    listener = wire.listening(version)
    data = os.urandom(20_000)
    if version == 6:  # destination options that are padding alone (RFC 8200, 4.6)
        padding = b"\x00\x00\x01\x04\x00\x00\x00\x00"
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, padding)

    def talk(one: socket.socket) -> None:
        if version == 4:  # four times "no operation" (RFC 791, 3.1)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x01")
        one.sendall(received(one))

    answering(listener, talk)
    long = f"src {PEER[version]} and {'ip[0] != 0x45' if version == 4 else 'ip6[6] == 60'}"
    seen = wire.start("router", *["tcpdump", "-Z", "root", "-c", "3", "-nvi", "p0"], long)
    assert seen.stderr is not None
    assert b"listening" in seen.stderr.readline()
    assert ended(wire.netkat("-N", PEER[version], "80"), data) == (0, data, "")
    said = seen.communicate(timeout=20)[0].decode()
    assert said.count("options (NOP,NOP,NOP,NOP)" if version == 4 else "DSTOPT") == 3


def test_a_device_of_bare_ip(wire: Wire) -> None:
    """A TUN device, as a VPN or an IP-in-IP tunnel is one: no MAC header, no neighbours."""
    wire.run("host", "iptables", "-A", "INPUT", "-i", "w0", "-j", "DROP")
    wire.run("host", "iptables", "-A", "OUTPUT", "-o", "w0", "-j", "DROP")
    with tunnel(wire, "host", "10.4.0"):
        before = state(wire)
        echo(wire, os.urandom(300_000), to="10.4.0.2")
        server = wire.netkat("-v", "-l", "10.4.0.1", "90")
        assert server.stderr is not None
        assert b"listening" in server.stderr.readline()
        client = wire.socket("peer")
        client.connect(("10.4.0.1", 90))
        client.sendall(b"in")
        client.shutdown(socket.SHUT_WR)
        assert ended(server)[:2] == (0, b"in")
        unchanged(wire, before)


def vlan(on: str, name: str) -> tuple[str, ...]:
    """Words that make a VLAN device."""
    return ("link", "add", "link", on, "name", name, "type", "vlan", "id", "5")


def stacked(wire: Wire, kind: str) -> str:
    """Put a device of a kind on the host's eth0, with eth0's address; its name."""
    wire.ip("host", "addr", "flush", "dev", "eth0")
    try:
        if kind == "bridge":
            wire.ip("host", "link", "add", "up0", "type", "bridge")
            wire.ip("host", "link", "set", "eth0", "master", "up0")
        elif kind == "bond":
            wire.ip("host", "link", "set", "eth0", "down")
            wire.ip("host", "link", "add", "up0", "type", "bond", "mode", "active-backup")
            wire.ip("host", "link", "set", "eth0", "master", "up0")
        elif kind == "vlan":
            wire.ip("host", *vlan("eth0", "up0"))
            wire.ip("router", *vlan("h0", "h0.5"))
            wire.ip("router", "addr", "flush", "dev", "h0")
            wire.ip("router", "addr", "add", "10.1.0.1/24", "dev", "h0.5")
            wire.ip("router", "link", "set", "h0.5", "up")
        else:
            wire.ip("host", *f"link add link eth0 name up0 type {kind}".split())
    except subprocess.CalledProcessError:
        pytest.skip(f"this kernel has no {kind} devices")
    wire.ip("host", "link", "set", "eth0", "up")
    wire.ip("host", "link", "set", "up0", "up")
    wire.ip("host", "addr", "add", "10.1.0.2/24", "dev", "up0")
    wire.ip("host", "route", "replace", "default", "via", ROUTER[4])
    return "up0"


@pytest.mark.parametrize("kind", ["bridge", "bond", "vlan", "macvlan", "ipvlan"])
def test_a_default_route_over_a_device_on_a_device(wire: Wire, kind: str) -> None:
    stacked(wire, kind)
    wire.run("host", "iptables", "-A", "INPUT", "-s", PEER[4], "-j", "DROP")
    before = state(wire)
    echo(wire, os.urandom(300_000))
    unchanged(wire, before)


@contextmanager
def tagging(wire: Wire, tag: int) -> Iterator[None]:
    """The router's device puts this VLAN tag on all that it sends."""
    code = Assembly()
    code.set(asm.R2, int.from_bytes(b"\x81\x00", "little"))
    code.set(asm.R3, tag)
    code.call(18)  # bpf_skb_vlan_push
    code.return_value(-1)
    program = load_classifier(code.program(), "tagging")
    try:
        with netns.inside(f"/run/netns/{wire.router}"):
            link = link_tcx_first(program, socket.if_nametoindex("h0"), syscall.TCX_EGRESS)
    except Unsupported as why:
        pytest.skip(str(why))
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(link)


def test_a_priority_tag_is_no_vlan(wire: Wire) -> None:
    with tagging(wire, 3 << 13):
        mac = wire.run("router", "cat", "/sys/class/net/h0/address").strip()
        echo(wire, b"x" * 5000, "--via", mac)


def test_another_vlan_is_not_ours(wire: Wire) -> None:
    """The same addresses and ports on a VLAN of the wire belong to a VLAN device, not to eth0."""
    wire.listening()
    with tagging(wire, 5):
        mac = wire.run("router", "cat", "/sys/class/net/h0/address").strip()
        code, _, err = ended(wire.netkat("-z", "-w", "1", "--via", mac, PEER[4], "80"))
        assert code == 1
        assert "no answer in 1 s" in err


def test_a_mark_is_on_the_packets_and_chooses_the_route(wire: Wire) -> None:
    wire.ip("host", *["route", "add", "default", "via", "10.1.0.1", "dev", "eth0", "table", "77"])
    wire.ip("host", *["rule", "add", "fwmark", "0x200", "lookup", "77"])
    wire.ip("host", "route", "del", "default")
    code = Assembly()
    code.load(asm.WORD, asm.R0, asm.R1, 16)  # struct __sk_buff: protocol; ARP is the host's too
    code.jump_if(asm.NE, asm.R0, asm.native(b"\x08\x00"), "marked")
    code.load(asm.WORD, asm.R0, asm.R1, 8)  # mark
    code.jump_if(asm.EQ, asm.R0, 0x200, "marked")
    code.return_value(2)
    code.label("marked")
    code.return_value(-1)
    program = load_classifier(code.program(), "marked")
    try:
        with netns.inside(f"/run/netns/{wire.host}"):
            link = link_tcx_first(program, socket.if_nametoindex("eth0"), syscall.TCX_EGRESS)
    except Unsupported as why:
        pytest.skip(str(why))
    finally:
        os.close(program)
    try:
        mac = wire.run("router", "cat", "/sys/class/net/h0/address").strip()
        wire.listening()
        assert "no route" in ended(wire.netkat("-z", PEER[4], "80"))[2]
        words = ("--mark", "0x200", "--via", mac)
        assert ended(wire.netkat("-z", *words, PEER[4], "80"))[0] == 0
    finally:
        os.close(link)


def test_devices_and_routes_that_cannot_work_are_named(wire: Wire) -> None:
    wire.ip("host", "route", "add", "prohibit", "10.9.0.0/16")
    for words, complaint in (
        (("127.0.0.1", "80"), "this host's own address"),
        ((HOST[4], "80"), "this host's own address"),
        (("10.9.0.1", "80"), "no route to 10.9.0.1"),
        (("-i", "nosuch", PEER[4], "80"), "no device nosuch"),
        (("-i", "lo", PEER[4], "80"), "lo is the loopback device"),
        (("--source", PEER[4], PEER[4], "80"), "no route"),
        (("--via", PEER[4], "1.2.3.4", "80"), "not on a link of this host"),
        (("--via", "fd01::1", "1.2.3.4", "80"), "different IP versions"),
        (("-6", "1.2.3.4", "80"), "-6 and HOST 1.2.3.4 are of different IP versions"),
    ):
        code, out, err = ended(wire.netkat(*words))
        assert (code, out) == (1, b"")
        assert complaint in err


def test_a_link_local_peer(wire: Wire) -> None:
    address = wire.run("router", "sh", "-c", "ip -6 -o addr show dev h0 scope link").split()[3]
    peer = address.partition("/")[0]
    server = wire.socket("router", 6)
    with netns.inside(f"/run/netns/{wire.router}"):
        scope = socket.if_nametoindex("h0")
    server.bind((peer, 80, 0, scope))
    server.listen()
    client = wire.netkat("-N", f"{peer}%eth0", "80")
    there = accepted(wire, server)
    there.sendall(b"link-local")
    there.close()
    assert ended(client) == (0, b"link-local", "")


def test_without_rights_it_says_which_are_missing(wire: Wire) -> None:
    before = state(wire)
    argv = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    argv += (sys.executable, "-m", "kubectl_ebpfnet.node.netkat", PEER[4], "80")
    code, out, err = ended(wire.start("host", *argv))
    assert (code, out) == (1, b"")
    assert "CAP_SYS_ADMIN" in err
    assert state(wire) == before
