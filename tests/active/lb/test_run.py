"""Whole runs of probe-lb against a fake cluster: who sends what through whom, and what it makes."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.cli import probe_arguments
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import CLIENT
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.probe import AttemptOutcome, Judgement, NodeRow, ProbeReport
from kubectl_ebpfnet.render.lb import report as render
from kubectl_ebpfnet.render.text.view import View
from tests.active.lb.lb_cluster import FIRST_PORT, LbCluster, Try, connected, silent, told
from tests.cluster.fake_cluster import ended
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    ADDRESSES6,
    CHECK,
    REQUEST,
    VIP,
    VIP6,
    by_udp,
    endpoint,
    node,
    service,
    slice_of,
)

QUICK = replace(REQUEST, wait=1.0)
Made = Callable[..., LbCluster]


@pytest.fixture
def make() -> Iterator[Made]:
    """`make(meets, *objects)`: a cluster of these objects, gone after the test."""
    made: list[LbCluster] = []

    def one(*words: Any) -> LbCluster:
        made.append(LbCluster(*words))
        return made[-1]

    yield one
    for cluster in made:
        cluster.server.close()


def dual_stack(policy: str = "Cluster", **spec: Any) -> dict[str, Any]:
    """A Service with an address of each family."""
    return service(
        policy,
        ingress=[{"ip": VIP}, {"ip": VIP6}],
        ipFamilies=["IPv4", "IPv6"],
        ipFamilyPolicy="RequireDualStack",
        clusterIPs=["10.96.0.7", "fd00:96::7"],
        **spec,
    )


def slices(*nodes: str, protocol: str = "TCP") -> list[dict[str, Any]]:
    """EndpointSlices of both families, as there are of a dual-stack Service."""
    four = slice_of(*(endpoint(name) for name in nodes), protocol=protocol)
    six = slice_of(
        *(endpoint(name, f"fd00:{name[1:]}::5") for name in nodes), protocol=protocol
    )  # fmt: skip
    six["metadata"] = {**six["metadata"], "name": "web-lb-y"}
    return [{**four, "addressType": "IPv4"}, {**six, "addressType": "IPv6"}]


def at(report: ProbeReport, name: str, version: int = 4) -> NodeRow:
    """The row of a node, of the target of an IP version."""
    (found,) = (r for r in report.rows if (r.node, r.target.version) == (name, version))
    return found


def masqueraded(one: Try) -> ConnectAttempt:
    """kube-proxy with externalTrafficPolicy Cluster: the backend sees the probed node."""
    own = (ADDRESSES if one.to.version == 4 else ADDRESSES6)[one.node]
    return connected(one, told(ip_address(own)))


def test_a_dual_stack_service_is_probed_at_both_addresses(make: Made) -> None:
    nodes = [node(name, dual=True) for name in ADDRESSES]
    cluster = make(masqueraded, dual_stack(), *slices("n1"), *nodes)
    report, bundle = cluster.run(QUICK)
    assert [target.title for target in report.targets] == [f"{VIP}:80/TCP", f"[{VIP6}]:80/TCP"]
    # Each through every node, by its address of the same family, from another node.
    ways = {(str(one.to), one.node, one.via) for one in cluster.tries}
    assert ways == {
        *((VIP, name, address) for name, address in ADDRESSES.items()),
        *((VIP6, name, address) for name, address in ADDRESSES6.items()),
    }
    assert all(one.sender != one.node for one in cluster.tries)
    assert {one.words["http"] for one in cluster.tries} == {"/clientip"}
    assert len(report.rows) == 6
    for row in report.rows:
        assert (row.outcome, row.source) == (AttemptOutcome.CONNECTED, "node")
        own = (ADDRESSES if row.target.version == 4 else ADDRESSES6)[row.node]
        assert row.source_seen == (ip_address(own),)
    document = render.document(report, bundle)
    items = {(one["target"]["version"], one["node"]): one for one in document["items"]}
    assert len(items) == 6
    six = items[6, "n2"]
    assert six["target"]["address"] == VIP6
    assert six["endpoints"]["total"] == 1
    (attempt,) = six["attempts"]
    assert attempt["destination"] == VIP6
    assert attempt["source"] == ADDRESSES6[attempt["from_node"]]
    assert attempt["source_seen"] == ADDRESSES6["n2"]
    assert (attempt["source_seen_port"], attempt["source_from"]) == (FIRST_PORT, "http")
    assert {one.sender for one in cluster.tries} == {"n2", "n3"}  # n1 has the endpoint


def test_a_client_on_a_node_is_shown_and_proves_nothing(make: Made) -> None:
    """No node answers as it should, and a client on a node is answered: by its own sockets."""

    def meets(one: Try) -> ConnectAttempt:
        return connected(one, told(one.source)) if "own" in one.words else silent(one)

    cluster = make(meets, service(), slice_of(endpoint("n1")), *map(node, ADDRESSES))
    report, bundle = cluster.run(QUICK)
    (asked,) = cluster.internal
    assert (asked.sender, str(asked.to), asked.via) == ("n2", VIP, "")
    (inside,) = report.internal
    assert (inside.node, inside.how, inside.outcome) == ("n2", "own-stack", "connected")
    assert inside.source_seen == ip_address(ADDRESSES["n2"])
    assert report.verdict is Judgement.CONTRADICTED
    assert {row.node for row in report.rows} == set(ADDRESSES)
    document = render.document(report, bundle)
    assert [one["node"] for one in document["internal"]] == ["n2"]
    assert document["internal"][0]["target"]["address"] == VIP
    text = render.render(report, bundle, "table", View(80))
    assert re.search(r"^on n2 .* internal +answered .* none$", text, re.MULTILINE)
    assert "proves nothing for customers" in " ".join(text.split())
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_local_of_a_dual_stack_service_and_one_family_that_fails(make: Made) -> None:
    """IPv6 does not come through at the node that has the endpoint."""

    def meets(one: Try) -> ConnectAttempt:
        if one.port == CHECK:
            body = f'{{"localEndpoints": {int(one.node == "n1")}}}'
            status = "200 OK" if one.node == "n1" else "503 Service Unavailable"
            return connected(one, f"HTTP/1.1 {status}\r\n\r\n{body}")
        if one.node == "n1" and one.to.version == 4:
            return connected(one, told(one.source))
        return silent(one)

    nodes = [node(name, dual=True) for name in ADDRESSES]
    cluster = make(meets, dual_stack("Local"), *slices("n1"), *nodes)
    report, _ = cluster.run(QUICK)
    assert {(r.target.version, r.node): r.judgement.value for r in report.rows} == {
        (4, "n1"): "as-asked", (4, "n2"): "as-asked", (4, "n3"): "as-asked",
        (6, "n1"): "contradicted", (6, "n2"): "as-asked", (6, "n3"): "as-asked",
    }  # fmt: skip
    assert at(report, "n1").source == "preserved"
    checks = [one for one in cluster.tries if one.port == CHECK]
    assert sorted(one.node for one in checks) == ["n1", "n2", "n3"]
    assert all(row.health is not None for row in report.rows)
    (finding,) = report.findings
    assert finding.title.startswith(f"n1 does not answer at [{VIP6}]:80/TCP (silence for 1 s)")


def test_a_node_with_one_family_alone_is_told_of_and_does_not_send(make: Made) -> None:
    nodes = [node("n1", dual=True), node("n2"), node("n3", dual=True)]
    cluster = make(masqueraded, dual_stack(), *slices("n1"), *nodes)
    report, _ = cluster.run(QUICK)
    six = {one.node: one.sender for one in cluster.tries if one.to.version == 6}
    assert six == {"n1": "n3", "n3": "n1"}
    row = at(report, "n2", 6)
    assert (row.outcome, row.judgement) == (AttemptOutcome.NOT_TRIED, "unknown")
    assert "the node has no InternalIP with an IPv6 address to send to" in row.notes
    assert at(report, "n2", 4).judgement == "as-asked"
    assert report.verdict == "unknown"
    assert report.summary.endswith("on 1 of 3 nodes: n2")


def test_nodes_of_ipv6_alone(make: Made) -> None:
    nodes = [node(name, dual=True) for name in ADDRESSES]
    for one in nodes:
        one["status"]["addresses"] = one["status"]["addresses"][1:]
    web = service("Local", ingress=[{"ip": VIP6}], clusterIPs=["fd00:96::7"], ipFamilies=["IPv6"])
    cluster = make(lambda one: connected(one, told(one.source)), web, slices("n2")[1], *nodes)
    report, _ = cluster.run(replace(QUICK, nodes="", node_ports=True))
    assert [target.title for target in report.targets] == [
        f"[{VIP6}]:80/TCP", "node port 30080/TCP over IPv6",
    ]  # fmt: skip
    assert {str(one.to) for one in cluster.tries if one.port == 30080} == {*ADDRESSES6.values()}
    (row,) = (r for r in report.rows if r.node == "n2" and r.target.address is not None)
    assert (row.source, row.expected.source) == ("preserved", "preserved")


def test_udp_whose_server_tells_the_clients_address(make: Made) -> None:
    def meets(one: Try) -> ConnectAttempt:
        return connected(one, told(one.source, False)) if one.node == "n2" else silent(one)

    nodes = [node(name) for name in ADDRESSES]
    web, ends = by_udp(healthCheckNodePort=0), slice_of(endpoint("n2"), protocol="UDP")
    cluster = make(meets, web, ends, *nodes)
    report, bundle = cluster.run(replace(QUICK, protocol=UDP))
    assert {"udp", "number", "wait"} == {word for one in cluster.tries for word in one.words}
    assert [r.judgement for r in report.rows] == ["as-asked"] * 3
    (attempt,) = at(report, "n2").attempts
    assert (attempt.source_from, attempt.source_seen) == ("udp", attempt.source)
    assert (attempt.source_seen_port, attempt.http_status) == (FIRST_PORT, None)
    assert at(report, "n2").source == "preserved"
    document = render.document(report, bundle)
    assert {one["target"]["protocol"] for one in document["items"]} == {"UDP"}
    assert document["request"]["protocol"] == "UDP"


def test_udp_that_nobody_answers_is_followed_by_conntrack(make: Made) -> None:
    """n1 sends it on, n2 tracks it and sends it to nobody, n3 knows nothing of it."""
    nodes = [node(name) for name in ADDRESSES]
    cluster = make(silent, by_udp("Cluster"), slice_of(endpoint("n1"), protocol="UDP"), *nodes)

    def flow(sender: str) -> Flow:
        return Flow(UDP, ip_address(ADDRESSES[sender]), FIRST_PORT, ip_address(VIP), 80)

    back = Flow(UDP, ip_address("10.244.1.5"), 8080, ip_address(ADDRESSES["n1"]), 61000)
    cluster.tracked["n1"] = [
        ConntrackEntry(flow("n2"), back, 29, status=frozenset({"UNREPLIED"})),
    ]
    cluster.tracked["n2"] = [ConntrackEntry(flow("n3"), flow("n3").reversed(), 29)]
    report, _ = cluster.run(QUICK)
    assert [r.outcome for r in report.rows] == [AttemptOutcome.TIMEOUT] * 3
    assert [r.judgement for r in report.rows] == ["unknown"] * 3
    assert [r.source for r in report.rows] == ["node", "unknown", "unknown"]
    (attempt,) = at(report, "n1").attempts
    assert attempt.backend == ip_address("10.244.1.5")
    assert (attempt.source_seen, attempt.source_from) == (ip_address(ADDRESSES["n1"]), "conntrack")
    assert "the node sent it on to 10.244.1.5, and nothing came back" in at(report, "n1").notes
    assert at(report, "n2").attempts[0].backend is None
    assert report.findings == ()


def test_an_answer_over_udp_that_is_no_address_leaves_the_source_to_conntrack(make: Made) -> None:
    nodes = [node(name) for name in ADDRESSES]
    cluster = make(
        lambda one: connected(one, "clientip\n"),
        by_udp("Cluster"), slice_of(endpoint("n1"), protocol="UDP"), *nodes,
    )  # fmt: skip
    report, _ = cluster.run(QUICK)
    row = at(report, "n2")
    assert (row.outcome, row.source, row.judgement) == (
        AttemptOutcome.CONNECTED,
        "unknown",
        "as-asked",
    )
    assert any(text.startswith("source not known") for text in row.notes)
    assert row.attempts[0].body == "clientip\n"


def test_senders_and_others_share_a_namespace(make: Made) -> None:
    nodes = [node(name) for name in ADDRESSES]
    cluster = make(masqueraded, service("Cluster"), slice_of(endpoint("n1")), *nodes)
    cluster.run(QUICK)
    made = cluster.pods.asked("POST")
    assert made.count("/api/v1/namespaces") == 1
    assert len([path for path in made if path.endswith("/pods")]) == 3


def test_without_any_sender_nothing_was_probed(make: Made) -> None:
    nodes = [node(name) for name in ADDRESSES]
    cluster = make(masqueraded, service("Cluster"), slice_of(endpoint("n1")), *nodes)
    cluster.pods.pod_status = lambda _: ended(1)
    with pytest.raises(ClusterError, match=r"no probe was sent.*has ended: Error, exit code 1"):
        cluster.run(QUICK)
    assert cluster.tries == []


def test_a_sender_whose_node_pod_does_not_run_says_why(make: Made) -> None:
    nodes = [node(name) for name in ADDRESSES]
    cluster = make(masqueraded, service("Cluster"), slice_of(endpoint("n1")), *nodes)
    usual, sender = cluster.pods.pod_status, "n2"
    cluster.pods.pod_status = lambda name: ended(1) if name == sender else usual(name)
    report, _ = cluster.run(QUICK)
    problems = [a for row in report.rows for a in row.attempts if a.outcome is AttemptOutcome.ERROR]
    assert problems
    for attempt in problems:
        assert attempt.detail.startswith(f"no node pod: the node pod on {sender}")
        assert attempt.detail.endswith("has ended: Error, exit code 1")
        assert attempt.evidence
    assert probe_arguments.exit_code([(report, None)], asked=False, dry_run=False) == 0
    rows = tuple(replace(row, judgement=Judgement.UNKNOWN) for row in report.rows)
    unknown = replace(report, rows=rows, verdict=Judgement.UNKNOWN)
    assert probe_arguments.exit_code([(unknown, None)], asked=False, dry_run=False) == 4
    assert probe_arguments.exit_code([(unknown, None)], asked=True, dry_run=True) == 0


@pytest.mark.parametrize("resolves", [True, False])
def test_a_load_balancers_name_is_looked_up_on_record(
    make: Made, monkeypatch: pytest.MonkeyPatch, resolves: bool
) -> None:
    name, real = "lb.example.com", socket.getaddrinfo

    def look_up(host: Any, *words: Any, **named: Any) -> Any:
        if host != name:
            return real(host, *words, **named)
        if not resolves:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (VIP, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    web = service(ingress=[{"hostname": name}])
    cluster = make(masqueraded, web, slice_of(endpoint("n1")), node("n1"), node("n2"))
    report, bundle = cluster.run(QUICK)
    record = bundle.record(CLIENT, ("resolve", name))
    assert record is not None
    assert record.ok is resolves
    assert [target.title for target in report.targets] == [f"{VIP}:80/TCP"] * resolves
    # The records alone, as in a capture, give the same targets; the resolver is not asked again.
    monkeypatch.setattr(socket, "getaddrinfo", None)
    again = judge(QUICK, bundle)
    assert (again.targets, again.missing) == (report.targets, report.missing)
