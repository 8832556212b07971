"""kube-proxy's table of nftables on a node's way to a Service: real rules of kube-proxy 1.36, and
what faults and other Services make of them (pkg/proxy/nftables/proxier.go).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.path import HopKind, Verdict
from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.changed import ask, dropped_at, finding, opened
from tests.explain.path.test_nft import KUBE_PROXY, LIST
from tests.parse.parse_samples import sample

Objects = list[dict[str, Any]]
WEB = "service-SUSTUHLJ-default/web/tcp/http"
VIP, END, GONE = "10.97.126.8", "10.44.1.193", "10.44.1.99"
TABLE = {"family": "ip", "table": "kube-proxy"}


def ask_with(
    edit: Callable[[Objects], None],
    source: str = "hostnet",
    to: str = "svc/web",
    more: Callable[[Record], Record] = lambda record: record,
) -> Answer:
    """Ask node1's way with an edited table of kube-proxy."""
    document = json.loads(sample("nftables-1.0.6/kube-proxy/nft-j-list-ruleset"))
    edit(document["nftables"])
    table = Record(0, node_place("node1"), LIST, 0, InMemory(json.dumps(document).encode()))
    records = [*map(more, opened(KUBE_PROXY).records), table]
    return ask(bundle_of(records, "kube-proxy"), source, to)


def of_table(objects: Objects, kind: str) -> Objects:
    """The chains, rules or maps of kube-proxy's IPv4 table."""
    bodies = (each.get(kind, {}) for each in objects)
    return [b for b in bodies if (b.get("family"), b.get("table")) == ("ip", "kube-proxy")]


def named(objects: Objects, name: str) -> dict[str, Any]:
    """A map or a set of it."""
    sets = of_table(objects, "map") + of_table(objects, "set")
    return next(body for body in sets if body["name"] == name)


def without_rules(objects: Objects, chain: str) -> None:
    """Flush a chain."""
    for each in [*objects]:
        body = each.get("rule", {})
        if body in of_table(objects, "rule") and body["chain"] == chain:
            objects.remove(each)


def give(objects: Objects, chain: str, *rules: list[dict[str, Any]]) -> None:
    """Write the rules of a chain, which need not be there yet."""
    if not any(body["name"] == chain for body in of_table(objects, "chain")):
        objects.append({"chain": {**TABLE, "name": chain, "handle": 900}})
    without_rules(objects, chain)
    for number, rule in enumerate(rules):
        objects.append({"rule": {**TABLE, "chain": chain, "handle": 901 + number, "expr": rule}})


def dnat(*ends: tuple[str, int]) -> list[dict[str, Any]]:
    """`meta l4proto tcp dnat ip to numgen random mod N map { … }`."""
    pairs = [[number, {"concat": [*end]}] for number, end in enumerate(ends)]
    key = {"numgen": {"mode": "random", "mod": len(ends), "offset": 0}}
    proto = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}
    return [
        proto,
        {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": {"set": pairs}}}}},
    ]


def balancing(path: Answer) -> str:
    (hop,) = [hop for hop in path.hops if hop.kind is HopKind.LOAD_BALANCING]
    return f"{hop.state} {hop.summary}"


def forget(objects: Objects) -> None:
    """kube-proxy has not heard of the Service."""
    named(objects, "service-ips")["elem"] = [
        each for each in named(objects, "service-ips")["elem"] if each[0]["concat"][0] != VIP
    ]


def unhook(objects: Objects) -> None:
    without_rules(objects, "nat-output")


def flush(objects: Objects) -> None:
    without_rules(objects, WEB)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (forget, f"map service-ips has no element for {VIP}:80"),
        (unhook, "no chain of nft table ip kube-proxy at output leads to chain services"),
        (flush, f"map service-ips leads to chain {WEB}, which has no rule"),
    ],
)
def test_a_table_that_does_not_translate_is_kube_proxys_fault(
    edit: Callable[[Objects], None], words: str
) -> None:
    path = ask_with(edit)
    assert path.verdict is Verdict.DROPPED or path.verdict is Verdict.UNKNOWN
    assert words in balancing(path)
    error = finding(path, "kube-proxy's rules on node1 do not translate ClusterIP")
    assert error.severity == "error"
    assert "-l k8s-app=kube-proxy --field-selector spec.nodeName=node1" in error.detail


def test_endpoints_that_the_slices_lack_are_kube_proxys_fault() -> None:
    path = ask_with(lambda objects: give(objects, WEB, dnat((GONE, 8080))))
    assert not path.verdict.let_through
    error = finding(path, "kube-proxy's rules on node1 are behind svc default/web")
    assert error.severity == "error"
    assert f"they send to {GONE}:8080, which no EndpointSlice names" in error.detail
    assert f"they lack {END}:8080, which is ready" in error.detail
    some = ask_with(lambda objects: give(objects, WEB, dnat((GONE, 8080), (END, 8080))))
    assert finding(some, "are behind svc default/web").severity == "warning"
    assert "1 of 2 backends" in some.reason


def prefer_same_node(record: Record) -> Record:
    """Services do, and their endpoints are on another node than the one that is asked."""
    if record.argv[:2] not in (("get", "services"), ("get", "endpointslices")):
        return record
    value = json.loads(record.stdout.read())
    for item in value.get("items", [value]):
        if "spec" in item:
            item["spec"]["trafficDistribution"] = "PreferSameNode"
        for end in item.get("endpoints") or ():
            end["nodeName"] = "node2"
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


def test_endpoints_of_other_nodes_may_be_left_out_by_hints() -> None:
    """The endpoint is on node2, node1 balances: what is gone is all that speaks against it."""
    path = ask_with(lambda objects: give(objects, WEB, dnat((GONE, 8080))), more=prefer_same_node)
    error = finding(path, "kube-proxy's rules on node1 are behind svc default/web")
    assert f"they send to {GONE}:8080, which no EndpointSlice names" in error.detail
    assert "they lack" not in error.detail


def test_affinity_leaves_open_which_endpoint() -> None:
    def affinity(objects: Objects) -> None:
        ends = {"A": (END, 8080), "B": ("10.44.0.77", 8080)}
        rules = []
        for name in ends:
            objects.insert(
                1,
                {"set": {**TABLE, "name": f"affinity-{name}", "type": "ipv4_addr", "handle": 990,
                         "flags": ["timeout", "dynamic"], "timeout": 10800}},
            )  # fmt: skip
            source = {"payload": {"protocol": "ip", "field": "saddr"}}
            known = {"match": {"op": "==", "left": source, "right": f"@affinity-{name}"}}
            rules.append([known, {"goto": {"target": f"endpoint-{name}"}}])
            update = {"set": {"op": "update", "elem": source, "set": f"@affinity-{name}"}}
            to = {"dnat": {"family": "ip", "addr": ends[name][0], "port": ends[name][1]}}
            give(objects, f"endpoint-{name}", [update], [to])
        targets = [[n, {"goto": {"target": f"endpoint-{name}"}}] for n, name in enumerate(ends)]
        dice = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
        give(objects, WEB, *rules, [{"vmap": {"key": dice, "data": {"set": targets}}}])

    path = ask_with(affinity)
    text = balancing(path)
    assert f"({WEB}; chosen for the newest flow, one of 2 backends; session affinity" in text
    assert not text.startswith("unknown")


def test_source_ranges_that_do_not_hold_the_client() -> None:
    def ranges(objects: Objects) -> None:
        firewall = "firewall-U3YJUCEZ-default/web-lb-cluster/tcp/http"
        named(objects, "firewall-ips")["elem"] = [
            [{"concat": ["172.31.7.242", "tcp", 80]}, {"goto": {"target": firewall}}]
        ]
        source = {"payload": {"protocol": "ip", "field": "saddr"}}
        networks = {"set": [{"prefix": {"addr": "192.0.2.0", "len": 24}}]}
        give(
            objects, firewall,
            [{"match": {"op": "!=", "left": source, "right": networks}}, {"drop": None}],
        )  # fmt: skip

    path = ask_with(ranges, to="172.31.7.242:80")
    assert "output-pre-dnat" in dropped_at(path).summary
    assert path.drop is not None
    assert path.drop.object == "Service default/web-lb-cluster"
    assert "svc default/web-lb-cluster does not let 172.31.7.11 in" in path.cause
    assert path.fix is not None
    assert "Add 172.31.7.11/32, or its network, to loadBalancerSourceRanges" in path.fix.text


def test_a_port_that_no_service_has() -> None:
    path = ask_with(lambda objects: None, to=f"{VIP}:81")
    assert "rejects it" in dropped_at(path).summary
    assert path.cause == "svc default/web does not serve port 81/TCP: it serves 80/TCP"
    path = ask_with(lambda objects: None, to="10.97.200.200:80")
    assert path.cause == "no Service has the ClusterIP 10.97.200.200"


def test_a_port_that_the_service_has_and_the_rules_have_not() -> None:
    def behind(objects: Objects) -> None:
        served = named(objects, "service-ips")
        served["elem"] = [each for each in served["elem"] if VIP not in json.dumps(each)]

    path = ask_with(behind, to=f"{VIP}:80")
    assert "rejects it" in dropped_at(path).summary
    assert path.cause == (
        "kube-proxy's rules on node1 are behind svc default/web, which has port 80/TCP"
    )


def test_an_address_that_takes_no_node_ports() -> None:
    def elsewhere(objects: Objects) -> None:
        named(objects, "nodeport-ips")["elem"] = ["192.0.2.1"]

    path = ask_with(elsewhere, to="172.31.7.11:32367")
    assert "set nodeport-ips lacks 172.31.7.11" in balancing(path)
    assert not [one for one in path.findings if "do not translate" in one.title]
