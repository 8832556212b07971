"""Attempts beside expectations: rows, judgements, the verdict and its line."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from probe_world import (
    ADDRESSES,
    NODE_PORT,
    PROOF,
    REQUEST,
    VIP,
    api,
    attempt,
    check,
    cilium,
    cluster,
    config,
    endpoint,
    node,
    on,
    rules,
    service,
    slice_of,
)

from kubectl_ebpfnet.explain.probe import judge
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.net import UDP
from kubectl_ebpfnet.model.probe import How, NodeRow, Outcome, ProbeReport, SourceFate

READY = endpoint("n1")
SILENT = Outcome.TIMEOUT
EXCLUDED = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}


def row(report: ProbeReport, name: str) -> NodeRow:
    """The only row of a node."""
    (found,) = (r for r in report.rows if r.node == name)
    return found


def test_local_as_it_should_be() -> None:
    report = judge(
        REQUEST,
        cluster(service(), READY),
        [attempt("n3", SILENT), attempt("n1"), attempt("n2", Outcome.REFUSED)],
        [check("n1", 200, 1), check("n2", 503, 0), check("n3", 503, 0)],
    )
    assert report.verdict == "as-asked"
    assert report.summary == (
        "svc/web-lb behaves as externalTrafficPolicy Local asks on 3 of 3 nodes"
    )
    assert report.findings == ()
    assert [r.node for r in report.rows] == ["n1", "n2", "n3"]
    one = row(report, "n1")
    assert (one.connected, one.told, one.outcome) == (1, 1, "connected")
    assert (one.source, one.source_seen) == ("preserved", (ip_address(ADDRESSES["n2"]),))
    assert one.seconds == pytest.approx(0.0021)
    assert row(report, "n2").outcome == "refused"
    assert row(report, "n3").judgement == "as-asked"


def test_cluster_as_it_should_be() -> None:
    report = judge(
        REQUEST,
        cluster(service("Cluster"), READY),
        [attempt("n1", seen="10.244.1.1"), attempt("n2", seen=ADDRESSES["n2"]),
         attempt("n3", seen=ADDRESSES["n3"])],
    )  # fmt: skip
    assert report.verdict == "as-asked"
    assert {r.source for r in report.rows} == {SourceFate.NODE}
    assert report.policy == "Cluster"
    assert report.datapath == "kube-proxy"


# policy, what n1 (with the endpoint) and n2 (without) did → verdicts of their rows
ANSWERS = [
    ("Local", Outcome.CONNECTED, SILENT, "as-asked", "as-asked"),
    ("Local", SILENT, SILENT, "contradicted", "as-asked"),
    ("Local", Outcome.REFUSED, SILENT, "contradicted", "as-asked"),
    ("Local", Outcome.ICMP, SILENT, "contradicted", "as-asked"),
    ("Local", Outcome.UNREACHABLE, Outcome.UNREACHABLE, "contradicted", "as-asked"),
    ("Local", Outcome.CONNECTED, Outcome.CONNECTED, "as-asked", "contradicted"),
    ("Local", Outcome.ERROR, Outcome.NOT_TRIED, "unknown", "unknown"),
    ("Cluster", Outcome.CONNECTED, SILENT, "as-asked", "contradicted"),
]


@pytest.mark.parametrize(("policy", "first", "second", "one", "two"), ANSWERS)
def test_answers_beside_what_is_expected(policy, first, second, one, two) -> None:
    report = judge(
        REQUEST,
        cluster(service(policy), READY, nodes=(node("n1"), node("n2"))),
        [attempt("n1", first, ""), attempt("n2", second, "")],
    )
    assert [r.judgement for r in report.rows] == [one, two]
    worst = "contradicted" if "contradicted" in (one, two) else one
    assert report.verdict == worst


# policy, settings, what the backend saw → source, judgement
SEEN = [
    ("Local", None, "preserved", "preserved", "as-asked"),
    ("Local", None, ADDRESSES["n1"], "node", "contradicted"),
    ("Local", None, "10.244.1.1", "node", "contradicted"),
    ("Local", None, "203.0.113.9", "other", "contradicted"),
    ("Local", None, "", "unknown", "as-asked"),
    ("Cluster", None, ADDRESSES["n1"], "node", "as-asked"),
    ("Cluster", None, "preserved", "preserved", "as-asked"),
    ("Cluster", None, ADDRESSES["n3"], "other", "contradicted"),
    ("Cluster", config(), ADDRESSES["n1"], "node", "as-asked"),
    ("Cluster", cilium("dsr"), ADDRESSES["n1"], "node", "contradicted"),
]


@pytest.mark.parametrize(("policy", "settings", "seen", "source", "judgement"), SEEN)
def test_the_source_beside_what_is_expected(policy, settings, seen, source, judgement) -> None:
    given = {"settings": settings} if settings else {}
    report = judge(
        REQUEST,
        cluster(service(policy), READY, **given),
        [attempt("n1", seen=seen, source_missing="" if seen else "no HTTP")],
    )
    one = row(report, "n1")
    assert (one.source, one.judgement) == (source, judgement)
    assert ("source not known: no HTTP" in one.notes) == (not seen)


def test_preserved_for_one_backend_and_not_for_another() -> None:
    both = [attempt("n1"), attempt("n1", seen=ADDRESSES["n1"])]
    ends = (READY, endpoint("n2"))
    report = judge(REQUEST, cluster(service("Cluster"), *ends, settings=cilium()), both)
    assert row(report, "n1").source == "either"
    assert row(report, "n1").judgement == "as-asked"
    report = judge(REQUEST, cluster(service(), READY), both)
    assert row(report, "n1").judgement == "contradicted"


@pytest.mark.parametrize(
    ("name", "status", "judgement"),
    [("n1", 200, "as-asked"), ("n1", 503, "contradicted"), ("n1", None, "contradicted"),
     ("n2", 503, "as-asked"), ("n2", 200, "contradicted"), ("n2", None, "as-asked")],
)  # fmt: skip
def test_health_checks_beside_what_is_expected(name, status, judgement) -> None:
    said = {"error": "connection refused"} if status is None else {}
    report = judge(
        REQUEST,
        cluster(service(), READY),
        [attempt("n1"), attempt("n2", SILENT)],
        [check(name, status, **said)],
    )
    assert row(report, name).judgement == judgement
    if status is None:
        assert "health check: connection refused" in row(report, name).notes


def test_several_attempts_of_which_some_fail() -> None:
    tries = [attempt("n1", seconds=0.003), attempt("n1", SILENT), attempt("n1", seconds=0.001)]
    one = row(judge(REQUEST, cluster(service(), READY), tries), "n1")
    assert (one.connected, one.told, one.outcome) == (2, 3, "timeout")
    assert one.seconds == pytest.approx(0.002)
    assert one.judgement == "contradicted"


def test_an_attempt_that_could_not_be_made_is_said() -> None:
    tries = [
        attempt("n1", Outcome.ERROR, detail="netkat: no NET_ADMIN"),
        attempt("n2", Outcome.NOT_TRIED, detail="no node pod"),
    ]
    report = judge(REQUEST, cluster(service(), READY), tries)
    assert row(report, "n1").notes == ("netkat: no NET_ADMIN",)
    assert row(report, "n2").notes == ("no node pod",)
    assert row(report, "n1").told == 0
    assert report.summary == (
        "svc/web-lb: unknown whether it behaves as externalTrafficPolicy Local asks: "
        "nothing was seen of 3 nodes"
    )


def test_a_node_port_instead_of_the_address_is_said() -> None:
    web = service(loadBalancerSourceRanges=["203.0.113.0/24"])
    instead = attempt(
        "n1", how=How.NODE_PORT, destination=ip_address(ADDRESSES["n1"]),
        destination_port=NODE_PORT, note="n1 is on another network: its node port was used",
    )  # fmt: skip
    one = row(judge(REQUEST, cluster(web, READY), [instead]), "n1")
    assert one.how == "node-port"
    assert one.notes == ("n1 is on another network: its node port was used",)
    # loadBalancerSourceRanges do not hold for node ports.
    assert (one.expected.answers, one.judgement) == ("yes", "as-asked")


def test_excluded_nodes_do_not_count() -> None:
    nodes = (node("n1"), node("n2", labels=EXCLUDED))
    tries = [attempt("n1", seen=ADDRESSES["n1"]), attempt("n2", SILENT)]
    report = judge(REQUEST, cluster(service("Cluster"), READY, nodes=nodes), tries)
    assert report.verdict == "as-asked"
    assert report.summary.endswith("on 1 of 1 nodes (1 more excluded from load-balancers)")
    assert row(report, "n2").judgement == "contradicted"
    assert row(report, "n2").notes[0].startswith("load-balancers send nothing here: it has the")
    assert [f.severity for f in report.findings] == ["info"]


def test_the_summary_names_the_first_nodes() -> None:
    nodes = tuple(node(name) for name in ADDRESSES)
    tries = [attempt(name, SILENT) for name in ADDRESSES]
    report = judge(REQUEST, cluster(service("Cluster"), READY, nodes=nodes), tries)
    assert report.summary == (
        "svc/web-lb does not behave as externalTrafficPolicy Cluster asks on 3 of 3 nodes: "
        "n1, n2, n3"
    )


def test_some_nodes_of_which_nothing_is_known() -> None:
    report = judge(REQUEST, cluster(service(), READY), [attempt("n1"), attempt("n2", SILENT)])
    assert report.verdict == "unknown"
    assert report.summary == (
        "svc/web-lb: unknown whether it behaves as externalTrafficPolicy Local asks on 1 of 3 "
        "nodes: n3"
    )


def test_silence_over_udp_tells_nothing() -> None:
    ports = [{"name": "http", "port": 80, "protocol": "UDP", "nodePort": NODE_PORT}]
    slices = slice_of(READY)
    slices["ports"] = [{"name": "http", "port": 8080, "protocol": "UDP"}]
    records = cluster(service(ports=ports)).records
    bundle = bundle_of([*records, api("endpointslices", slices)])
    target = judge(REQUEST, bundle).targets[0]
    assert target.protocol == UDP
    told = {
        outcome: row(judge(REQUEST, bundle, [attempt("n1", outcome, target=target)]), "n1")
        for outcome in (SILENT, Outcome.REFUSED, Outcome.CONNECTED)
    }
    assert [r.judgement for r in told.values()] == ["unknown", "contradicted", "as-asked"]
    assert judge(REQUEST, bundle, [attempt("n1", SILENT, target=target)]).findings == ()


def test_attempts_at_a_target_that_nobody_asked_for_are_shown() -> None:
    other = replace(attempt("n1").target, port=81, node_port=0)
    report = judge(REQUEST, cluster(service(), READY), [attempt("n1", SILENT, target=other)])
    assert [t.title for t in report.targets] == [f"{VIP}:80/TCP", f"{VIP}:81/TCP"]


def test_nodes_that_were_selected() -> None:
    nodes = (node("n1", labels={"zone": "a"}), node("n2"))
    report = judge(
        replace(REQUEST, nodes="zone=a"), cluster(service(), READY, nodes=nodes), [attempt("n1")]
    )
    assert [r.node for r in report.rows] == ["n1"]
    assert report.verdict == "as-asked"


def test_no_node_is_known() -> None:
    records = [r for r in cluster(service(), READY).records if "nodes" not in r.argv]
    report = judge(REQUEST, bundle_of(records))
    assert report.rows == ()
    assert report.missing == ("no node is known: nothing could be expected of any",)


def test_evidence_of_a_row_is_that_of_its_parts() -> None:
    report = judge(
        REQUEST,
        cluster(service(), READY, more=(rules("n1", "local.node1"),)),
        [attempt("n1", evidence=PROOF)],
        [check("n1", 200, 1, evidence=PROOF)],
    )
    proof = row(report, "n1").evidence
    assert proof[0] == PROOF[0]
    assert [e.record for e in proof] == [1, 1, 2, 7]
    assert "loadbalancer IP" in proof[-1].excerpt[0]
    assert report.datapath == "kube-proxy iptables"


def test_the_table_that_has_the_address_is_believed() -> None:
    """The settings say that Cilium replaces kube-proxy, but its map lacks the address."""
    bare = on("n1", "ebpfnet-node lb", "")
    bundle = cluster(
        service("Cluster"), READY, settings=cilium(),
        more=(rules("n1", "local.node1"), bare, rules("n2", "local.node2")),
    )  # fmt: skip
    report = judge(REQUEST, bundle)
    assert row(report, "n1").expected.source == "node"  # kube-proxy there
    assert row(report, "n2").expected.source_why.startswith("Cilium in SNAT mode")
    assert report.datapath == "kube-proxy iptables, Cilium SNAT"
