"""parse.sockets, on what Linux 6.18 and grep(1) printed of a namespace with one of each socket."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.catalogue import MOST_SOCKETS
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.parse import sockets
from tests.parse.parse_samples import line_at, sample

TCP = sample("linux-6.18/sockets/grep-proc-net-tcp")
UDP = sample("linux-6.18/sockets/grep-proc-net-udp")


def test_listeners() -> None:
    found = sockets.tcp(TCP)
    assert [(str(one.address), one.port) for one in found] == [
        ("10.9.0.2", 7000), ("0.0.0.0", 8080), ("0.0.0.0", 7001), ("0.0.0.0", 7001),
        ("127.0.0.1", 8081), ("::", 9092), ("::", 9090), ("10.9.0.2", 9093), ("::1", 9091),
    ]  # fmt: skip
    # listen(1), and two that nobody accepts: of how many, and of IPV6_V6ONLY, the file is silent.
    assert found[0] == Listener(ip_address("10.9.0.2"), 7000, waiting=2)
    assert line_at(TCP, found[0].span.line).startswith("/proc/net/tcp:   0: 0200090A:1B58 ")


def test_udp_sockets_with_and_without_a_peer() -> None:
    connected, *rest = sockets.udp(UDP)
    assert connected.peer == ip_address("10.9.0.3")
    assert (connected.port, connected.peer_port) == (6000, 6001)
    assert [(str(one.address), one.port, one.peer_port) for one in rest] == [
        ("0.0.0.0", 5353, None), ("127.0.0.1", 5355, None), ("fd09::2", 6000, 6001),
        ("::", 5354, None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_kernel_without_ipv6_has_no_second_file(name: str) -> None:
    parser = getattr(sockets, name)
    data = sample(f"linux-6.18/sockets/grep-proc-net-{name}-protocols")
    assert parser(data)
    assert {one.address.version for one in parser(data)} == {4}
    with pytest.raises(ParseError, match=f"{name}6.*not read"):
        parser(data + f"/proc/net/protocols:{name.upper()}v6  2432\n".encode())


@pytest.mark.parametrize("data", [b"", TCP.partition(b"/proc/net/tcp6")[0]])
def test_a_file_that_was_not_read_is_no_empty_one(data: bytes) -> None:
    with pytest.raises(ParseError, match="not read"):
        sockets.tcp(data)


def test_a_file_that_was_cut_short_is_none_at_all() -> None:
    row = TCP.split(b"\n")[1] + b"\n"
    with pytest.raises(ParseError, match=f"only {MOST_SOCKETS}"):
        sockets.tcp(TCP.replace(row, row * MOST_SOCKETS))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b" 0A ", b" 01 "), (b"0200090A:1B58", b"0200090A"), (b"0200090A:1B58", b"02:1B58"),
     (b"/proc/net/tcp:   0:", b"   0:"), (b"00000000:00000002", b"x")],
)  # fmt: skip
def test_what_is_no_listener_is_no_fact(old: bytes, new: bytes) -> None:
    with pytest.raises(ParseError):
        sockets.tcp(TCP.replace(old, new, 1))


EPS = sample("linux-6.18/format/proc-net-sctp-eps")


def test_endpoints_of_sctp_that_listen_at_each_of_their_addresses() -> None:
    found = sockets.sctp(EPS)
    assert [(str(one.address), one.port) for one in found] == [
        ("10.0.1.7", 3868), ("10.0.2.7", 3868), ("::", 2905),
    ]  # fmt: skip
    assert line_at(EPS, found[0].span.line).startswith("0000000012345678")
    assert sockets.sctp(EPS.splitlines()[0] + b"\n") == ()


@pytest.mark.parametrize("data", [b"", b"cat: no", EPS + b"1 2 3\n", EPS.replace(b"*", b"x")])
def test_what_is_no_list_of_endpoints_is_not_an_empty_one(data: bytes) -> None:
    with pytest.raises(ParseError):
        sockets.sctp(data)
