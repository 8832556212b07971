"""Addresses of a DNS name."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.model.resolver import LookupOutcome
from kubectl_ebpfnet.parse import lookup, resolver
from tests.parse.parse_samples import sample


def test_each_address_comes_once_and_other_lines_are_skipped() -> None:
    printed = sample("glibc-2.36/getent-ahosts-localhost")  # a line for each type of socket
    assert lookup.addresses(printed) == (ip_address("127.0.0.1"),)
    assert lookup.addresses(b"93.184.216.34\nnot an address\n") == (ip_address("93.184.216.34"),)
    assert lookup.addresses(b"") == ()


@pytest.mark.parametrize(
    ("name", "addresses", "outcome"),
    [
        ("both", ["10.96.1.2", "fd00:96::7"], LookupOutcome.NO_ADDRESS),
        ("search", ["10.96.1.2", "fd00:96::7"], LookupOutcome.NO_SUCH_NAME),
        ("none", [], LookupOutcome.NO_ADDRESS),
        ("nxdomain", [], LookupOutcome.NO_SUCH_NAME),
        ("servfail", [], LookupOutcome.FAILED),
        ("silent", [], LookupOutcome.SILENT),
    ],
)
def test_busybox_nslookup(name: str, addresses: list[str], outcome: LookupOutcome) -> None:
    printed = sample(f"busybox-1.35.0/nslookup-{name}")
    assert lookup.nslookup(printed) == tuple(map(ip_address, addresses))
    assert lookup.outcome(printed)[0] is outcome
    assert lookup.outcome(b"") == (LookupOutcome.NOTHING, "")


def test_the_files_of_a_resolver() -> None:
    [conf] = resolver.config(sample("kubelet-1.36/resolv-conf"))
    assert conf.nameservers == (ip_address("10.96.0.10"),)
    assert conf.candidates("web") == (
        "web.default.svc.cluster.local",
        "web.svc.cluster.local",
        "web.cluster.local",
        "web.example.internal",
        "web",
    )
    assert conf.candidates("a.b.c.d.e.f")[0] == "a.b.c.d.e.f"
    assert conf.candidates("web.") == ("web",)
    [order] = resolver.order(sample("glibc-2.36/nsswitch"))
    assert order.sources == ("files", "dns")
    [two] = resolver.config(b"; x\ndomain a\nsearch b c # d\noptions ndots:99 rotate\nnameserver x")
    assert (two.search, two.ndots, two.nameservers) == (("b", "c"), 15, ())
    assert resolver.config(b"") == ()
    hosts = resolver.hosts(b"10.0.0.1 a B # c\n\n# x\nfe80::1%lo d\n")
    assert [(str(each.address), each.names) for each in hosts] == [("10.0.0.1", ("a", "b"))]
