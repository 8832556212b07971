"""Whatever the bytes are: facts or a ParseError, of every parser of the kernel's side.

Three kinds of input: any bytes at all; real samples with some of their bytes changed, cut or
repeated; and JSON of the right outer shape with anything in it.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.model.evidence import NOWHERE
from kubectl_ebpfnet.parse import (
    conntrack,
    iproute,
    lookup,
    netfilter,
    nettools,
    nft,
    procfs,
    resolver,
    sockets,
    tools,
)
from kubectl_ebpfnet.parse.bpf import bpffs, bpftool, tc
from tests.parse.fuzzing import Parser, damaged, documents, facts_of
from tests.parse.parse_samples import SAMPLES, every

# Each parser with the beginnings of the names of the samples that it reads.
_LINKS = ("ip-link", "ip-d-link", "ip-j-d-link")
_ADDRESSES = ("ip-addr", "ip-j-addr", "ip-a")
PARSERS: dict[str, tuple[Parser, tuple[str, ...]]] = {
    "ip link": (iproute.links, _LINKS + _ADDRESSES),
    "ip addr": (iproute.addresses, _ADDRESSES),
    "ip route": (iproute.routes, ("ip-route", "ip-d-route", "ip-j-route")),
    "ip -6 route": (iproute.routes6, ("ip-6-route", "ip-j-6-route")),
    "ip rule": (iproute.rules, ("ip-rule", "ip-j-rule", "ip-6-rule", "ip-j-6-rule")),
    "ip -6 rule": (iproute.rules6, ("ip-6-rule", "ip-j-6-rule")),
    "ip neigh": (iproute.neighbours, ("ip-neigh", "ip-j-neigh", "ip-s-neigh")),
    "ip xfrm state": (iproute.xfrm_states, ("ip-s-xfrm-state",)),
    "ip xfrm policy": (iproute.xfrm_policies, ("ip-xfrm-policy",)),
    "/proc/net/xfrm_stat": (procfs.xfrm_errors, ("proc-net-xfrm",)),
    "/proc/net/route": (procfs.routes, ("proc-net-route",)),
    "/proc/net/ipv6_route": (procfs.routes6, ("proc-net-ipv6-route",)),
    "/proc/net/arp": (procfs.neighbours, ("proc-net-arp",)),
    "ip -s link": (iproute.device_counters, ("ip-s-j-d-link", "ip-j-d-link")),
    "tc qdisc": (iproute.qdiscs, ("tc-s-j-qdisc",)),
    "nf_conntrack": (procfs.conntrack_counters, ("grep-proc-sys-net",)),
    "/proc/sys/net": (procfs.sysctls, ("grep-proc-sys-net",)),
    "/proc/net/tcp": (sockets.tcp, ("grep-proc-net-tcp",)),
    "/proc/net/udp": (sockets.udp, ("grep-proc-net-udp",)),
    "/proc/net/sctp/eps": (sockets.sctp, ("proc-net-sctp-eps",)),
    "iflink": (procfs.number, ("sys-class-net",)),
    "route -n": (nettools.routes, ("route-n", "route-6-n")),
    "arp -an": (nettools.neighbours, ("arp-an",)),
    "ifconfig addresses": (nettools.addresses, ("ifconfig",)),
    "conntrack": (partial(every, conntrack.entry), ("conntrack", "proc-net-nf-conntrack")),
    "conntrack line": (partial(conntrack.entry, number=1), ("proc-net-nf-conntrack",)),
    "tc": (partial(tc.filters, device="eth0", direction="ingress"), ("tc-filter",)),
    "bpftool net": (bpftool.net, ("bpftool-net", "bpftool-j-net")),
    "bpftool link": (bpftool.links, ("bpftool-j-link", "bpftool-j-f-link")),
    "bpftool prog": (bpftool.programs, ("bpftool-j-prog",)),
    "bpftool version": (bpftool.version, ("bpftool-j-version",)),
    "bpftool cgroup": (bpftool.cgroup_tree, ("bpftool-cgroup",)),
    "bpffs": (bpffs.pins, ("ls-R",)),
    "getent": (lookup.addresses, ("getent",)),
    "nslookup": (lookup.nslookup, ("nslookup",)),
    "resolv.conf": (resolver.config, ("resolv-conf",)),
    "hosts": (resolver.hosts, ("etc-hosts",)),
    "nsswitch": (resolver.order, ("nsswitch",)),
    "tools": (tools.found, ("ls-R",)),
    "iptables-save": (netfilter.ruleset, ("iptables-save", "ip6tables-save")),
    "nft": (nft.ruleset, ("nft",)),
}
NAMES = sorted(PARSERS)
# Members that the parsers look at, so that random objects reach further than their first check.
_MEMBER_WORDS = """
    ifindex ifname link link_index link_netnsid flags mtu address linkinfo info_kind info_data port
    external xdp prog attached id addr_info family local prefixlen scope dst from gateway via host
    dev table type prefsrc metric metrics nexthops pref priority src srclen fwmark fwmask iif goto
    action not lladdr state proxy kind chain options handle bpf_name name tag devname prog_id
    stats64 rx tx packets dropped root drops qlen rate loss-random loss pids pid comm
    link_id tc multi_attachments attach_type pinned map_ids loaded_at programs cgroup error
"""
_WORDS = """
    default inet inet6 local vxlan veth lo eth0 10.0.0.1 10.0.0.0/8 fd00::1 fd00::/8 all main
    0x200 UP LOWER_UP bpf tcx netkit cgroup tcx_ingress -1 99
    /sys/fs/bpf/cilium/devices/eth0/links/x
"""


def parse(name: str, data: bytes) -> None:
    check(facts_of(PARSERS[name][0], data), data.count(b"\n") + 1)


def check(fact: Any, last: int) -> None:
    """Every fact names a place in the input and can be used as a key and be shown."""
    if isinstance(fact, tuple):
        for one in fact:
            check(one, last)
    elif is_dataclass(fact):
        assert isinstance(hash(fact), int)
        for one in fields(fact):
            if one.name == "span":
                assert fact.span.path or set(fact.span.lines) <= set(range(1, last + 1))
                assert fact.span != NOWHERE
            if one.name in ("chains", "rules"):
                check(getattr(fact, one.name), last)


@cache
def samples(name: str) -> tuple[bytes, ...]:
    """The real outputs that the parser reads, the shorter ones."""
    _, beginnings = PARSERS[name]
    paths = (path for path in sorted(SAMPLES.rglob("*")) if path.is_file())
    wanted = (path for path in paths if path.name.startswith(beginnings))
    found = tuple(data for path in wanted if len(data := path.read_bytes()) < 8000)
    assert found, f"no sample for {name}"
    return found


# To make an input takes longer than to parse it: all parsers are given each one that fits them all.


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for name in NAMES:
        parse(name, data)


@pytest.mark.parametrize("name", NAMES)
@given(draw=st.data())
def test_damaged_samples(name: str, draw: st.DataObject) -> None:
    parse(name, draw.draw(damaged(samples(name))))


@given(documents(_MEMBER_WORDS.split(), _WORDS.split()))
def test_any_json_of_the_right_outer_shape(document: Any) -> None:
    data = json.dumps(document).encode()
    for name in NAMES:
        parse(name, data)


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_themselves(name: str) -> None:
    for data in samples(name):
        if name == "conntrack line":
            data = data.split(b"\n")[0]
        PARSERS[name][0](data)


@pytest.mark.parametrize("name", NAMES)
def test_long_lines_take_linear_time(name: str) -> None:
    # Each of these would take minutes with a backtracking pattern; the runner's limit is 120 s.
    for piece in (b"a", b"a ", b"1: a: <", b"(", b'"', b"a@", b":", b" on x at (", b"[", b"-m "):
        parse(name, piece * (200_000 // len(piece)))
