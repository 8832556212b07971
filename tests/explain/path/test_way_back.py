"""The way back: the answer's walk on recorded clusters, with what a fault would have changed.

Rules of netfilter are in test_netfilter.py, sysctls in test_node_routing.py; the lab loses answers
for real (tests/lab/test_road_back.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, bundle_of, pod_place
from kubectl_ebpfnet.model.path import Path, Return, State, Verdict
from tests.explain.path.changed import NATIVE, VXLAN, Change, ask, changed, say, swap, without
from tests.explain.path.test_netfilter import rules
from tests.explain.path.test_node_routing import sysctls
from tests.explain.path.variants import edit, json_edit

ROUTES, ADDRESSES, IPCACHE = (
    "ip -j route show table all",
    "ip -j addr",
    "cilium-dbg bpf ipcache list",
)
WEB = "pod/web:8081"
"""A port to which the recorded clusters track no flow."""
TO_CLIENTS = (
    '{"dst":"10.244.1.0/24","gateway":"172.30.0.12","dev":"eth0","protocol":"kernel","flags":[]}'
)


def lost(path: Path, node: str, words: str) -> None:
    """The packet arrives, and its answer is dropped on a node."""
    assert path.verdict is Verdict.DROPPED, path.reason
    assert path.drop is not None
    assert path.answer is not None
    assert (path.drop.direction, path.drop.node, path.drop.how) == ("answer", node, "derived")
    hop = path.answer.hops[path.drop.hop - 1]
    assert hop is path.answer.hops[-1]
    assert hop.drops
    assert words in hop.summary
    assert not any(each.drops for each in path.hops)
    assert path.reason.startswith(f"dropped at hop {hop.number} of the way back")
    assert path.cause.startswith("the answer is lost: ")
    assert path.answer.state is Return.LOST
    assert any(f.title.startswith("way back: ") and f.severity == "error" for f in path.findings)


def ip_rules(*lines: str) -> Record:
    """What `ip rule` prints in the web pod."""
    text = "\n".join(["0:\tfrom all lookup local", *lines, "32766:\tfrom all lookup main"]) + "\n"
    return Record(0, pod_place("default", "web"), ("ip", "rule"), 0, InMemory(text.encode()))


def of_node1(old: str, new: str) -> Change:
    """Its routes with other words."""
    return swap("node1", ROUTES, old, new)


@pytest.mark.parametrize("scenario", [VXLAN, NATIVE])
def test_an_answer_comes_back_as_its_packet_went(scenario: str) -> None:
    path = ask(changed(scenario), "client", WEB)
    assert path.verdict is Verdict.REACHABLE
    assert path.answer is not None
    assert (path.answer.state, path.answer.asymmetric) == (Return.RETURNS, False)
    assert path.answer.way == "the same nodes and devices"
    first, last = path.answer.hops[0], path.answer.hops[-1]
    assert (first.where, first.kind) == ("default/web", "route")
    assert (last.where, last.kind) == ("default/client", "delivery")
    assert last.packet.flow.reversed() == path.hops[0].packet.flow
    assert not any(hop.kind in ("policy", "load-balancing") for hop in path.answer.hops)


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("10.244.0.173 dev eth0 scope link\n", "no route to 10.244.1.160 in the pod"),
        ("default via 10.244.0.173 dev eth0\nblackhole 10.244.1.0/24\n", "blackhole in the pod"),
    ],
)
def test_a_far_pod_whose_routes_lose_the_answer(routes: str, words: str) -> None:
    path = ask(changed(VXLAN, say("web", "ip route", routes)), "client", WEB)
    lost(path, "node1", words)
    assert path.answer is not None
    assert path.answer.hops[-1].where == "default/web"


def test_a_rule_of_the_far_pod() -> None:
    for_another = ip_rules("50:\tfrom all to 10.244.1.160 blackhole")
    at_client = ip_rules("50:\tfrom all to 10.244.1.53 blackhole")
    lost(ask(changed(NATIVE, more=(at_client,)), "client", WEB), "node1", "says blackhole")
    assert ask(changed(NATIVE, more=(for_another,)), "client", WEB).verdict is Verdict.REACHABLE


def test_a_route_of_the_far_node() -> None:
    refusing = '{"type":"unreachable","dst":"10.244.1.0/24","flags":[]}'
    path = ask(changed(NATIVE, of_node1(TO_CLIENTS, refusing)), "client", WEB)
    lost(path, "node1", "10.244.1.0/24 is unreachable")


def test_without_a_route_of_the_far_node_a_router_would_have_to_know_the_client() -> None:
    path = ask(changed(NATIVE, of_node1(f"{TO_CLIENTS},", "")), "client", WEB)
    assert path.verdict is Verdict.UNKNOWN
    wanted = (
        "of the way back: it arrives only if the router 172.30.0.1 routes 10.244.1.0/24 to node2"
    )
    assert wanted in path.reason
    # What is answered now shows that the router does.
    answered = ask(changed(NATIVE, of_node1(f"{TO_CLIENTS},", "")), "client", "pod/web:8080")
    assert answered.verdict is Verdict.DELIVERED


def no_client(ipcache: str) -> str:
    lines = ipcache.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("10.244.1."))


def legacy(status: str) -> str:
    return status.replace('"mode":"BPF"', '"mode":"Legacy"').replace(
        '"mode": "BPF"', '"mode": "Legacy"'
    )


def test_a_far_ipcache_that_lacks_the_client() -> None:
    stack = edit("node1", "cilium-dbg status -o json", legacy)
    path = ask(changed(VXLAN, edit("node1", IPCACHE, no_client), stack), "client", WEB)
    lost(path, "node1", "10.244.1.160 is 0.0.0.0/0, the world in the ipcache of node1")
    assert "which pod default/client of node2 has" in path.cause
    assert path.fix is not None
    assert path.fix.command.endswith(" -- cilium-dbg bpf ipcache get 10.244.1.160")


def test_a_far_ipcache_that_lacks_the_clients_node() -> None:
    """What a node sends to pods of others has the address of its cilium_host."""
    stack = edit("node1", "cilium-dbg status -o json", legacy)
    path = ask(changed(VXLAN, edit("node1", IPCACHE, no_client), stack), "node/node2", WEB)
    assert path.verdict == "dropped"
    lacks = r"the answer is lost: Cilium's ipcache of node1 lacks 10\.244\.1\.\d+, which node node2"
    assert re.search(lacks, path.cause)


def test_an_endpoint_map_that_lacks_the_client() -> None:
    def gone(text: str) -> str:
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("10.244.1.160:"))

    change = edit("node2", "cilium-dbg bpf endpoint list", gone)
    path = ask(changed(VXLAN, change), "client", WEB)
    lost(path, "node2", "no endpoint has 10.244.1.160 on node2")
    assert "cilium_lxc) lacks 10.244.1.160" in path.cause


def second_link(value: list[dict[str, Any]]) -> None:
    """eth1 with an address of a network of its own."""
    first = next(link for link in value if link["ifname"] == "eth0")
    copy = json.loads(json.dumps(first)) | {
        "ifname": "eth1",
        "ifindex": 77,
        "address": "02:00:00:00:00:77",
    }
    for own in copy.get("addr_info", ()):
        own |= {"local": "172.31.0.12", "label": "eth1"} if own["family"] == "inet" else {}
    value.append(copy)


BY_ETH1 = (
    json_edit("node2", ADDRESSES, second_link),
    json_edit("node2", "ip -j -d link", second_link),
    of_node1(TO_CLIENTS, TO_CLIENTS.replace("172.30.0.12", "172.31.0.12")),
)


def test_another_device_is_shown_and_no_error() -> None:
    path = ask(changed(NATIVE, *BY_ETH1), "client", WEB)
    assert path.answer is not None
    assert path.answer.state is Return.RETURNS
    assert path.answer.asymmetric
    assert path.answer.way == "other devices than the packet: by eth0 of node1, eth1 of node2"
    assert path.verdict is Verdict.REACHABLE
    assert not any(finding.severity == "error" for finding in path.findings)


def test_rp_filter_makes_another_device_an_error() -> None:
    strict = sysctls(eth1__rp_filter=1, eth1__forwarding=1)
    path = ask(changed(NATIVE, *BY_ETH1, more=(strict,)), "client", WEB)
    lost(path, "node2", "rp_filter is strict (1) at eth1")
    assert path.answer is not None
    assert path.answer.asymmetric


def test_translations_are_undone_where_they_were_made() -> None:
    world = ask(changed(NATIVE), "client", "1.1.1.1:80").answer
    assert world is not None
    (nat,) = [hop for hop in world.hops if hop.kind == "nat"]
    assert nat.summary.endswith("the answer goes to 10.244.1.53:54498")
    assert str(world.hops[0].packet.flow.destination) == "172.30.0.12"
    service = ask(changed(NATIVE), "client", "svc/web:80").answer
    assert service is not None
    (nat,) = [hop for hop in service.hops if hop.kind == "nat"]
    assert nat.summary.endswith("the answer comes from 10.96.71.229:80")
    assert nat.node == "node2"


def test_what_nobody_has_of_the_far_pod_is_presumed_and_named() -> None:
    path = ask(changed(NATIVE, without("web")), "client", WEB)
    assert path.verdict is Verdict.REACHABLE
    assert path.answer is not None
    assert path.answer.state is Return.RETURNS
    wanted = "not read, and presumed to be as usual: routes and rules of pod default/web"
    assert path.answer.reason.startswith(wanted)


def test_routes_of_the_far_pod_that_cannot_be_parsed_are_not_presumed() -> None:
    path = ask(changed(NATIVE, say("web", "ip route", "default zzz\n")), "client", WEB)
    assert path.verdict is Verdict.UNKNOWN
    assert "of the way back" in path.reason


def test_an_answer_whose_packet_was_not_tracked() -> None:
    """It makes no connection: an answer of TCP is INVALID then, one of UDP is NEW."""
    line = "filter FORWARD -m conntrack --ctstate INVALID -j DROP"
    bundle = changed(NATIVE, *rules(line, "raw PREROUTING -i eth0 -j CT --notrack", node="node1"))
    lost(ask(bundle, "client", WEB), "node1", "INVALID")
    assert ask(bundle, "client", WEB, "udp").verdict is Verdict.REACHABLE


@pytest.mark.parametrize("answered", [False, True])
def test_a_foreign_program_on_the_way_back_is_undecided(answered: bool) -> None:
    def xdp(nets: list[dict[str, Any]]) -> None:
        nets[0]["xdp"].append(
            {"devname": "eth0", "ifindex": 2, "mode": "driver", "id": 999, "name": "mine"}
        )

    change = json_edit("node2", "bpftool -j net show", xdp)
    path = ask(changed(NATIVE, change), "client", "pod/web:8080" if answered else WEB)
    assert path.answer is not None
    hop = next(hop for hop in path.answer.hops if "not one of Cilium's" in hop.summary)
    assert not any("not one of Cilium's" in hop.summary for hop in path.hops)
    if answered:
        assert (path.verdict, hop.state) == (Verdict.DELIVERED, State.OBSERVED)
    else:
        assert (path.verdict, hop.state) == (Verdict.UNKNOWN, State.UNKNOWN)
        assert f"at hop {hop.number} of the way back" in path.reason


IPV4_ALONE = (
    "bpf ct",
    "bpf nat",
    "bpf lb",
    "bpf endpoint",
    "nf_conntrack",
    "service list",
    "ip6tables",
)
ARGV6 = {
    ("ip", "route"): ("ip", "-6", "route"),
    ("ip", "-j", "rule"): ("ip", "-j", "-6", "rule"),
    ("iptables-save", "-c"): ("ip6tables-save", "-c"),
}
WORDS6 = (
    (r"10\.244\.0\.0/16", "fd00:10:244::/48"),
    (r"10\.244\.([01])\.0/24", r"fd00:10:244:\1::/64"),
    (r"172\.30\.0\.0/24", "fd00:172:30::/64"),
    (r"\b10\.(244|96)\.(\d+)\.(\d+)\b", r"fd00:10:\1:\2::\3"),
    (r"\b172\.30\.0\.(\d+)\b", r"fd00:172:30::\1"),
    (r"\b1\.1\.1\.1\b", "2606:4700::1111"),
    (r"\b127\.0\.0\.1\b", "::1"),
    (r"\b0\.0\.0\.0\b", "::"),
    (r"/32\b", "/128"),
    ('"family":"inet"', '"family":"inet6"'),
    ('"ipv4":', '"ipv6":'),
)


def as_ipv6(bundle: Bundle) -> Bundle:
    """A recorded cluster with IPv6 addresses, without the tables whose form differs then."""
    records = []
    for record in bundle.records:
        if any(words in record.command for words in IPV4_ALONE):
            continue
        text = record.stdout.read().decode()
        for old, new in WORDS6:
            text = re.sub(old, new, text)
        argv = ARGV6.get(record.argv, record.argv)
        records.append(replace(record, argv=argv, stdout=InMemory(text.encode())))
    return bundle_of(records)


IN_IPV6: dict[str, tuple[tuple[Change, ...], str, str, str]] = {
    "the far pod's route": (
        (say("web", "ip route", "10.244.0.180 dev eth0 scope link\n"),),
        WEB, "node1", "no route to"),
    "the far node's route": (
        (of_node1(TO_CLIENTS, '{"type":"blackhole","dst":"10.244.1.0/24","flags":[]}'),),
        WEB, "node1", "fd00:10:244:1::/64 is blackhole"),
    "raw PREROUTING of the client's node": (
        tuple(rules("raw PREROUTING -i eth0 -s 10.244.0.251 -j DROP")), WEB, "node2",
        "by raw PREROUTING"),
    "FORWARD, for the world": (
        tuple(rules("filter FORWARD -i eth0 -s 1.1.1.1 -j DROP")), "[2606:4700::1111]:81", "node2",
        "FORWARD rule 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_IPV6)
def test_ipv6_alike(name: str) -> None:
    changes, to, node, words = IN_IPV6[name]
    healthy = ask(as_ipv6(changed(NATIVE)), "client", to).answer
    assert healthy is not None
    assert (healthy.state, healthy.asymmetric) == (Return.RETURNS, False)
    lost(ask(as_ipv6(changed(NATIVE, *changes)), "client", to), node, words)


def test_a_node_that_sees_a_connection_in_one_direction_drops_what_follows_the_handshake() -> None:
    """node2 sends to the world by node1, whose answers come to node2's own address."""
    default = '[{"dst":"default","gateway":"172.30.0.1"'
    more = '[{"dst":"9.9.9.9","gateway":"172.30.0.11","dev":"eth0","flags":[]},'
    by_node1 = swap("node2", ROUTES, default, more + default[1:])
    first = "[152:10303] -A FORWARD"
    invalid = "[0:0] -A FORWARD -m conntrack --ctstate INVALID -j DROP\n"
    with_rule = swap("node1", "iptables-save -c", first, invalid + first)
    path = ask(changed(NATIVE, by_node1, with_rule), "client", "9.9.9.9:80")
    assert path.verdict == "dropped", path.reason
    assert path.drop is not None
    assert (path.drop.node, path.drop.direction) == ("node1", "packet")
    assert "the answer passes node1 by" in path.reason
    udp = ask(changed(NATIVE, by_node1, with_rule), "client", "9.9.9.9:53", "udp")
    assert udp.verdict != "dropped", udp.reason
