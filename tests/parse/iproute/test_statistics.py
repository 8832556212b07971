"""Qdiscs and device counters, as tc and ip print them."""

from __future__ import annotations

import json

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.parse import iproute, procfs
from tests.parse.parse_samples import sample


def test_qdiscs_of_a_real_namespace() -> None:
    found = iproute.qdiscs(sample("iproute2-6.1.0/queues/tc-s-j-qdisc-show"))
    named = {(one.device, one.kind): one for one in found}
    assert named["d1", "blackhole"].drops == 3
    tbf = named["d0", "tbf"]
    assert (tbf.root, tbf.packets, tbf.drops, tbf.rate) == (True, 32, 0, 125_000)
    assert not named["d0", "clsact"].root


def test_netem_says_what_it_loses() -> None:
    """Format of iproute2's tc/q_netem.c."""
    options = {"limit": 1000, "loss-random": {"loss": 0.3, "correlation": 0},
               "rate": {"rate": 1250, "packetoverhead": 0}}  # fmt: skip
    row = {"kind": "netem", "dev": "eth0", "root": True, "options": options}
    (netem,) = iproute.qdiscs(json.dumps([row]).encode())
    assert (netem.loss, netem.rate) == (0.3, 1250)


@pytest.mark.parametrize("loss", [2, -1, True, "1", None, 1e999])
def test_a_loss_that_is_none_is_refused(loss: object) -> None:
    row = {"kind": "netem", "dev": "eth0", "options": {"loss-random": {"loss": loss}}}
    with pytest.raises(ParseError):
        iproute.qdiscs(json.dumps([row]).encode())


def test_counters_have_the_kernels_names() -> None:
    found = iproute.device_counters(sample("iproute2-6.1.0/queues/ip-s-j-d-link"))
    named = {(one.device, one.name): one.value for one in found}
    assert named["d0", "tx_packets"] > 30
    assert named["d0", "rx_dropped"] == named["d0", "tx_errors"] == 0
    assert iproute.device_counters(sample("iproute2-6.1.0/netns/ip-j-d-link")) == ()
    assert iproute.links(sample("iproute2-6.1.0/queues/ip-s-j-d-link"))


@pytest.mark.parametrize("key", ["stats64", "stats644", "stats"])
def test_older_programs_name_the_statistics_otherwise(key: str) -> None:
    link = {"ifname": "eth0", key: {"rx": {"packets": 7}}}
    (found,) = iproute.device_counters(json.dumps([link]).encode())
    assert (found.name, found.value) == ("rx_packets", 7)
    assert found.span.path == (0, key, "rx", "packets")


def test_nf_conntracks_losses_are_the_sum_of_all_cpus() -> None:
    head = b"/proc/net/stat/nf_conntrack:"
    data = (
        b"/proc/sys/net/netfilter/nf_conntrack_count:7\n"
        + head + b"entries  clashres drop early_drop\n"
        + head + b"00000007  00000000 00000010 00000000\n"
        + head + b"00000007  00000000 0000000a 00000001\n"
    )  # fmt: skip
    named = {one.name: one.value for one in procfs.conntrack_counters(data)}
    assert (named["drop"], named["early_drop"]) == (26, 1)
    assert [one.value for one in procfs.sysctls(data)] == [7]
    assert procfs.conntrack_counters(data.split(b"\n")[0]) == ()
