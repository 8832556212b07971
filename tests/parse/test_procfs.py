"""parse.procfs, on what Linux 6.18 printed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import Neighbour, Route, Sysctl
from kubectl_ebpfnet.parse import iproute, procfs
from tests.parse.parse_samples import line_at, sample

NETNS = "linux-6.18/netns/"
POD = "linux-6.18/native-pod-client/"


def test_the_routes_of_a_pod() -> None:
    data = sample(POD + "proc-net-route")
    assert procfs.routes(data) == (
        Route(ip_network("0.0.0.0/0"), ip_address("10.244.1.114"), "eth0"),
        Route(ip_network("10.244.1.114/32"), None, "eth0"),
    )
    assert line_at(data, procfs.routes(data)[0].span.line).startswith("eth0\t00000000\t7201F40A")


@pytest.mark.parametrize("where", ["vxlan-node1", "native-node2"])
def test_the_routes_of_a_node_are_those_of_ip(where: str) -> None:
    said = iproute.routes(sample(f"iproute2-6.1.0/{where}/ip-route"))
    known = [replace(route, preferred_source=None, scope="", mtu=None) for route in said]
    assert list(procfs.routes(sample(f"linux-6.18/{where}/proc-net-route"))) == known


def test_routes_of_every_type() -> None:
    routes = {str(r.destination): r for r in procfs.routes(sample(NETNS + "proc-net-route"))}
    assert routes["0.0.0.0/0"].metric == 7
    assert routes["10.8.0.0/30"].gateway is None
    assert (routes["10.30.0.0/16"].type, routes["10.30.0.0/16"].device) == ("blackhole", "")
    assert routes["10.31.0.0/16"].type == routes["10.32.0.0/16"].type == "unreachable"
    assert routes["10.40.0.0/16"].gateway == ip_address("0.0.0.0")  # an IPv6 next hop
    assert routes["1.2.3.4/32"].mtu is None  # the column says 1040: advmss 1000 + 40


def test_routes6_are_those_of_ip() -> None:
    said = iproute.routes(sample("iproute2-6.1.0/netns/ip-route-show-table-all"))
    wanted = [
        # The file has no room for what the route refuses with, nor for weights.
        replace(
            route,
            weight=0,
            type="unreachable" if route.type in ("blackhole", "prohibit") else route.type,
        )
        for route in said
        if route.destination.version == 6
    ]
    assert list(procfs.routes6(sample(NETNS + "proc-net-ipv6-route"))) == wanted
    assert len(wanted) > 30


def test_routes6_of_a_pod() -> None:
    routes = procfs.routes6(sample(POD + "proc-net-ipv6-route"))
    assert [(str(r.destination), r.type, r.device) for r in routes] == [
        ("fe80::/64", "unicast", "eth0"),
        ("::1/128", "local", "lo"),
        ("fe80::742e:2eff:fe2c:83c6/128", "local", "eth0"),
        ("ff00::/8", "multicast", "eth0"),
    ]


def test_neighbours() -> None:
    data = sample(NETNS + "proc-net-arp")
    found = {str(one.address): one for one in procfs.neighbours(data)}
    assert found["10.9.0.3"] == Neighbour(
        ip_address("10.9.0.3"), "d0", "aa:bb:cc:dd:ee:fe", ("REACHABLE",)
    )
    assert found["10.9.0.2"].states == ("PERMANENT",)
    assert (found["10.9.0.4"].mac, found["10.9.0.4"].states) == ("", ("INCOMPLETE",))
    assert "10.9.0.66" not in found  # published: this host's own answer
    assert line_at(data, found["10.9.0.3"].span.line).startswith("10.9.0.3 ")


def test_the_neighbour_of_a_pod() -> None:
    (found,) = procfs.neighbours(sample(POD + "proc-net-arp"))
    assert (str(found.address), found.mac, found.device) == (
        "10.244.1.114",
        "96:84:05:ad:c4:6a",
        "eth0",
    )


def test_iflink() -> None:
    assert procfs.number(sample(POD + "sys-class-net-eth0-iflink")) == 12
    for data in (b"", b"x\n", b"1 2", b"\xff"):
        with pytest.raises(ParseError):
            procfs.number(data)


def test_nothing_is_nothing() -> None:
    heading = sample(POD + "proc-net-route").split(b"\n")[0]
    assert procfs.routes(b"") == procfs.routes(heading) == procfs.routes6(b"") == ()


@pytest.mark.parametrize(
    "row",
    [
        "eth0\t00000000\t7201F40A\t0003\t0\t0\t0\t00000000\t0\t0",  # a column too few
        "eth0\t0000000\t7201F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0",  # a digit too few
        "eth0\t00000000\t7201F40A\t0003\t0\t0\t0\t00FF00FF\t0\t0\t0",  # a mask with a hole
        "eth0\t00000000\tGGGGGGGG\t0003\t0\t0\t0\t00000000\t0\t0\t0",
    ],
)
def test_bad_routes_are_named(row: str) -> None:
    with pytest.raises(ParseError) as raised:
        procfs.routes(f"Iface\tDestination\n{row}\n".encode())
    assert (raised.value.source, raised.value.line) == ("/proc/net/route", 2)


def test_a_prefix_that_is_too_long() -> None:
    row = sample(POD + "proc-net-ipv6-route").split(b"\n")[0].replace(b" 40 ", b" ff ", 1)
    with pytest.raises(ParseError, match="255 bits"):
        procfs.routes6(row)


def test_sysctls() -> None:
    data = sample(NETNS + "grep-proc-sys-net")
    found = {fact.name: fact for fact in procfs.sysctls(data)}
    assert found["net/ipv4/conf/eth0.100/rp_filter"] == Sysctl(
        "net/ipv4/conf/eth0.100/rp_filter", 0
    )
    assert found["net/netfilter/nf_conntrack_max"].value == 262144
    assert (
        line_at(data, found["net/ipv4/ip_forward"].span.line) == "/proc/sys/net/ipv4/ip_forward:0"
    )


@pytest.mark.parametrize("text", ["net/ipv4/ip_forward:1", "/proc/sys/a", "/proc/sys/a:yes"])
def test_no_sysctl(text: str) -> None:
    with pytest.raises(ParseError):
        procfs.sysctls(text.encode())
