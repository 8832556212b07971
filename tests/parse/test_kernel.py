"""The real programs of this machine, now: their two forms must give equal facts.

Needs root (network namespaces, BPF). What the machine cannot make is a skip with its reason.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.parse import conntrack, iproute, netfilter, procfs
from kubectl_ebpfnet.parse.bpf import bpffs, bpftool, tc
from tests.network_namespaces import why_not
from tests.parse.kernel_namespace import Made, namespace
from tests.parse.parse_samples import every

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not()), reason=f"cannot make a network namespace: {why_not()}"),
]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with namespace() as one:
        yield one


def run(made: Made, command: str) -> bytes:
    try:
        return made.near.run(*command.split())
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not installed")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        pytest.skip(f"{command}: {said or error.returncode}")


def unnamed(facts: tuple[Any, ...]) -> list[Any]:
    # The namespace of a link's other end has its name in text and its number in JSON.
    return [
        replace(fact, netns_id=None, netns_name="") if isinstance(fact, Link) else fact
        for fact in facts
    ]


@pytest.mark.parametrize(
    ("parse", "text", "json"),
    [
        (iproute.links, "ip -d link", "ip -j -d link"),
        (iproute.links, "ip addr", "ip -j addr"),
        (iproute.addresses, "ip -d addr", "ip -j -d addr"),
        (iproute.routes, "ip route", "ip -j route"),
        (iproute.routes, "ip route show table all", "ip -j route show table all"),
        (iproute.rules, "ip rule", "ip -j rule"),
        (iproute.rules, "ip -6 rule", "ip -j -6 rule"),
        (iproute.neighbours, "ip neigh", "ip -j neigh"),
    ],
)
def test_both_forms_agree(
    made: Made, parse: Callable[[bytes], tuple[Any, ...]], text: str, json: str
) -> None:
    facts = parse(run(made, text))
    assert facts
    assert unnamed(facts) == unnamed(parse(run(made, json)))


def test_both_forms_agree_on_what_is_attached(made: Made) -> None:
    devices = {link.name for link in iproute.links(run(made, "ip -j -d link"))}

    def ours(command: str) -> list[Any]:
        # bpftool lists netfilter's and the flow dissector's programs of others too.
        return [one for one in bpftool.net(run(made, command)) if one.device in devices]

    facts = ours("bpftool net show")
    assert facts
    assert facts == ours("bpftool -j net show")


def test_routes6_agree(made: Made) -> None:
    said = iproute.routes(run(made, "ip -6 route show table all"), 6)
    assert said == iproute.routes(run(made, "ip -j -6 route show table all"), 6)
    file = procfs.routes6(run(made, "cat /proc/net/ipv6_route"))
    assert [(r.destination, r.gateway, r.device, r.metric, r.table) for r in file] == [
        (r.destination, r.gateway, r.device, r.metric, r.table) for r in said
    ]


def test_routes_agree_with_the_kernels_file(made: Made) -> None:
    said = {
        r.destination: (r.device, r.metric) for r in reversed(iproute.routes(run(made, "ip route")))
    }
    file = procfs.routes(run(made, "cat /proc/net/route"))
    assert {route.destination: (route.device, route.metric) for route in file} == said


def test_iflink_is_the_peers_index(made: Made) -> None:
    (link,) = iproute.links(run(made, "ip -d link show dev lxc1"))
    assert link.peer_index == procfs.number(run(made, "cat /sys/class/net/lxc1/iflink"))
    assert link.kind == "veth"


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_filters_agree(made: Made, direction: str) -> None:
    words = f"filter show dev lxc1 {direction}"
    text = tc.filters(run(made, f"tc {words}"), "lxc1", direction)
    if not text:
        pytest.skip(f"no filter could be made: {made.near.missing}")
    shown = bpftool.net(run(made, "bpftool -j net show"))
    hook = [one for one in shown if (one.device, one.hook) == ("lxc1", f"clsact/{direction}")]
    assert [one.program_id for one in hook] == [one.program_id for one in text]


def test_links_and_pins_agree(made: Made) -> None:
    # The machine lists everybody's links and cgroups.
    shown = bpftool.links(run(made, "bpftool -j -f link show"))
    links = [one for one in shown if one.pin.startswith(f"{made.bpffs}/cilium/")]
    ours = {one.pin for one in links}
    if not ours:
        pytest.skip(f"no link could be made: {made.near.missing}")
    pins = bpffs.pins(run(made, f"ls -R {made.bpffs}"))
    assert {pin.path for pin in pins} == ours
    programs = {one.id for one in bpftool.programs(run(made, "bpftool -j prog show"))}
    assert {one.program_id for one in links} <= programs
    group = f"{made.cgroups}/ebpfnet-parse"
    tree = bpftool.cgroup_tree(run(made, f"bpftool cgroup tree {group}"))
    assert tree


def test_conntrack_agrees_with_the_kernels_file(made: Made) -> None:
    def timeless(data: bytes) -> set[Any]:
        # States of TCP do not change here: the connections stay open. Time passes.
        return {replace(entry, timeout=None) for entry in every(conntrack.entry, data)}

    before = timeless(run(made, "cat /proc/net/nf_conntrack"))
    printed = timeless(run(made, "conntrack -L"))
    extended = timeless(run(made, "conntrack -L -o extended"))
    after = timeless(run(made, "cat /proc/net/nf_conntrack"))
    stable = {entry for entry in before & after if entry.original.protocol == TCP}
    if not stable:
        pytest.skip(f"no connection could be made: {made.near.missing}")
    assert stable <= printed
    assert stable <= extended
    (nat,) = [entry for entry in stable if entry.destination_nat]
    assert (nat.original.destination_port, nat.translated().destination_port) == (8081, 8080)
    assert (str(nat.translated().source), nat.source_nat) == ("10.66.0.3", True)


@pytest.mark.parametrize("command", ["iptables-save", "ip6tables-save"])
def test_rulesets_agree_with_and_without_counters(made: Made, command: str) -> None:
    plain = netfilter.ruleset(run(made, command))
    counted = netfilter.ruleset(run(made, f"{command} -c"))
    assert plain.rules
    assert list(plain.rules) == [replace(one, packets=None, bytes=None) for one in counted.rules]
    assert all(one.packets is not None for one in counted.rules)
