"""parse.nettools, on what net-tools 2.10, BusyBox 1.35 and the machines of tp06 printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Neighbour, Route
from kubectl_ebpfnet.parse import iproute, nettools, procfs
from tests.parse.parse_samples import line_at, sample

PROGRAMS = ["net-tools-2.10", "busybox-1.35.0"]
TP06 = "net-tools-unknown/tp06-"


def test_the_pods_routes_of_tp06() -> None:
    data = sample(TP06 + "pod/route-n")
    assert nettools.routes(data) == (
        Route(ip_network("0.0.0.0/0"), ip_address("10.244.0.201"), "eth0"),
        Route(ip_network("10.244.0.201/32"), None, "eth0"),
    )
    assert [line_at(data, r.span.line).split()[0] for r in nettools.routes(data)] == [
        "0.0.0.0",
        "10.244.0.201",
    ]


def test_the_nodes_routes_of_tp06() -> None:
    routes = nettools.routes(sample(TP06 + "node/route-n"))
    assert len(routes) == 8
    assert routes[0].gateway == ip_address("165.22.16.1")
    assert routes[3] == Route(ip_network("10.244.0.0/25"), ip_address("10.135.152.71"), "eth1")


@pytest.mark.parametrize("program", PROGRAMS)
def test_routes_are_those_of_the_file_that_it_reads(program: str) -> None:
    file = procfs.routes(sample("linux-6.18/netns/proc-net-route"))
    assert nettools.routes(sample(f"{program}/netns/route-n")) == file
    assert len(file) > 10


def test_routes6_are_those_of_the_file() -> None:
    file = procfs.routes6(sample("linux-6.18/netns/proc-net-ipv6-route"))
    printed = nettools.routes(sample("net-tools-2.10/netns/route-6-n"))
    assert list(printed) == [replace(route, source=None) for route in file]


def test_the_neighbour_of_tp06() -> None:
    assert nettools.neighbours(sample(TP06 + "pod/arp-an")) == (
        Neighbour(ip_address("10.244.0.201"), "eth0", "f6:93:7d:11:4d:37", ("REACHABLE",)),
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_neighbours_are_those_of_the_file_that_it_reads(program: str) -> None:
    file = procfs.neighbours(sample("linux-6.18/netns/proc-net-arp"))
    assert set(nettools.neighbours(sample(f"{program}/netns/arp-an"))) == set(file)
    assert len(file) == 4


def test_the_addresses_of_tp06() -> None:
    data = sample(TP06 + "node/ifconfig-cilium-host")
    assert nettools.addresses(data) == (
        InterfaceAddress("cilium_host", ip_address("10.244.0.201"), 32),
        InterfaceAddress("cilium_host", ip_address("fe80::a0a3:2ff:fe88:734"), 64, "link"),
    )
    assert [one.span.line for one in nettools.addresses(data)] == [2, 3]


@pytest.mark.parametrize("program", PROGRAMS)
def test_addresses_are_those_of_ip(program: str) -> None:
    printed = nettools.addresses(sample(f"{program}/netns/ifconfig-a"))
    ours = {
        (one.device, one.address, one.prefix_length)
        for one in iproute.addresses(sample("iproute2-6.1.0/netns/ip-addr"))
    }
    theirs = {(one.device, one.address, one.prefix_length) for one in printed}
    assert theirs == ours - {("lxc1", ip_address("10.66.0.3"), 24)}  # a second one has no label
    assert ("d0", ip_address("10.9.0.7"), 24) in theirs  # its label is d0:1


@pytest.mark.parametrize(
    ("parse", "data", "line"),
    [
        (nettools.routes, "Kernel IP routing table\n0.0.0.0 10.0.0.1 0.0.0.0 UG\n", 2),
        (nettools.routes, "0.0.0.0 x 0.0.0.0 UG 0 0 0 eth0\n", 1),
        (nettools.neighbours, "\n? (10.0.0.1) is at home\n", 2),
        (nettools.addresses, "eth0 is fine\n", 1),
        (nettools.addresses, "eth0: flags=1<UP>  mtu 1500\n  inet 10.0.0.1  netmask 9.9.9.9\n", 2),
    ],
)
def test_an_unintelligible_record_is_named(
    parse: Callable[[bytes], object], data: str, line: int
) -> None:
    with pytest.raises(ParseError) as raised:
        parse(data.encode())
    assert raised.value.line == line
