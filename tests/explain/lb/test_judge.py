"""Attempts beside expectations: rows, judgements, the verdict and its line."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.net import UDP
from kubectl_ebpfnet.model.probe import AttemptOutcome, How, NodeRow, ProbeReport, SourceFate
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    NODE_PORT,
    PROOF,
    REQUEST,
    TARGET,
    VIP,
    VIP6,
    attempt,
    by_udp,
    check,
    cilium,
    cluster,
    config,
    endpoint,
    node,
    on,
    rules,
    service,
)

READY = endpoint("n1")
SILENT = AttemptOutcome.TIMEOUT
EXCLUDED = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}


def row(report: ProbeReport, name: str) -> NodeRow:
    """The only row of a node."""
    (found,) = (r for r in report.rows if r.node == name)
    return found


def test_local_as_it_should_be() -> None:
    report = judge(
        REQUEST,
        cluster(service(), READY),
        [attempt("n3", SILENT), attempt("n1"), attempt("n2", AttemptOutcome.REFUSED)],
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
    ("Local", AttemptOutcome.CONNECTED, SILENT, "as-asked", "as-asked"),
    ("Local", SILENT, SILENT, "contradicted", "as-asked"),
    ("Local", AttemptOutcome.REFUSED, SILENT, "contradicted", "as-asked"),
    ("Local", AttemptOutcome.ICMP, SILENT, "contradicted", "as-asked"),
    ("Local", AttemptOutcome.UNREACHABLE, AttemptOutcome.UNREACHABLE, "contradicted", "as-asked"),
    ("Local", AttemptOutcome.CONNECTED, AttemptOutcome.CONNECTED, "as-asked", "contradicted"),
    ("Local", AttemptOutcome.ERROR, AttemptOutcome.NOT_TRIED, "unknown", "unknown"),
    ("Cluster", AttemptOutcome.CONNECTED, SILENT, "as-asked", "contradicted"),
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
        attempt("n1", AttemptOutcome.ERROR, detail="netkat: no NET_ADMIN"),
        attempt("n2", AttemptOutcome.NOT_TRIED, detail="no node pod"),
    ]
    report = judge(REQUEST, cluster(service(), READY), tries)
    assert row(report, "n1").notes == ("netkat: no NET_ADMIN",)
    assert row(report, "n2").notes == ("no node pod",)
    assert row(report, "n1").told == 0
    assert report.summary == (
        "svc/web-lb: unknown whether it behaves as externalTrafficPolicy Local asks: "
        "nothing was seen of 3 nodes"
    )


def test_without_a_probe_the_summary_says_dry_run() -> None:
    report = judge(REQUEST, cluster(service(), READY))
    assert report.summary == ("svc/web-lb: dry run: expected results for 3 nodes")
    # A probe that could try nothing is none.
    assert "nothing was seen of 3 nodes" in judge(REQUEST, cluster(service(), READY), []).summary


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


UDP_TARGET = replace(TARGET, protocol=UDP)
UNHEARD = "silence over UDP tells nothing: the server may not answer what a probe asks"


def udp(
    name: str,
    outcome: AttemptOutcome = AttemptOutcome.CONNECTED,
    seen: str = "preserved",
    **rest: Any,
):
    """An attempt over UDP."""
    return attempt(name, outcome, seen, target=UDP_TARGET, **rest)


def test_silence_over_udp_tells_nothing_where_nobody_answers() -> None:
    report = judge(REQUEST, cluster(by_udp(), READY), [udp("n1", SILENT), udp("n2", SILENT)])
    assert [r.judgement for r in report.rows] == ["unknown"] * 3
    assert [UNHEARD in r.notes for r in report.rows] == [True, True, False]
    assert (report.verdict, report.findings) == ("unknown", ())


def test_silence_over_udp_tells_where_the_server_answers_elsewhere() -> None:
    tries = [udp("n1", seen=ADDRESSES["n1"]), udp("n2", SILENT), udp("n3", seen=ADDRESSES["n3"])]
    report = judge(REQUEST, cluster(by_udp("Cluster"), READY), tries)
    assert [r.judgement for r in report.rows] == ["as-asked", "contradicted", "as-asked"]
    assert all(UNHEARD not in r.notes for r in report.rows)
    (found,) = report.findings
    assert found.title.startswith(f"n2 does not answer at {VIP}:80/UDP (timeout) although")
    # The same port of the same Service at another address has the same servers.
    other = replace(UDP_TARGET, address=ip_address("198.51.100.9"))
    tries = [replace(udp("n1"), target=other), udp("n2", SILENT)]
    assert judge(REQUEST, cluster(by_udp("Cluster"), READY), tries).verdict == "contradicted"
    # Another port has others.
    other = replace(UDP_TARGET, port_name="dns", port=53)
    tries = [replace(udp("n1"), target=other), udp("n2", SILENT)]
    report = judge(REQUEST, cluster(by_udp("Cluster"), READY), tries)
    assert [r.judgement for r in report.rows if r.attempts and r.node == "n2"] == ["unknown"]


def test_silence_over_udp_is_as_asked_where_nobody_could_answer() -> None:
    local = judge(REQUEST, cluster(by_udp(), READY), [udp("n1"), udp("n2", SILENT)])
    assert row(local, "n2").judgement == "as-asked"
    idle = endpoint("n1", ready=False)
    report = judge(REQUEST, cluster(by_udp(), idle), [udp("n1", SILENT), udp("n2", SILENT)])
    assert [r.judgement for r in report.rows] == ["as-asked", "as-asked", "unknown"]
    assert all(UNHEARD not in r.notes for r in report.rows)


def test_a_refusal_over_udp_is_one() -> None:
    report = judge(REQUEST, cluster(by_udp(), READY), [udp("n1", AttemptOutcome.REFUSED)])
    assert row(report, "n1").judgement == "contradicted"
    report = judge(REQUEST, cluster(by_udp(), READY), [udp("n2", AttemptOutcome.REFUSED)])
    assert row(report, "n2").judgement == "as-asked"
    report = judge(REQUEST, cluster(by_udp(), READY), [udp("n2", AttemptOutcome.ICMP)])
    assert row(report, "n2").judgement == "as-asked"


def test_what_a_node_sends_on_over_udp_is_seen_without_an_answer() -> None:
    sent = {"backend": ip_address("10.244.1.5"), "source_from": "conntrack"}
    on_to = udp("n1", SILENT, source_seen=ip_address(ADDRESSES["n1"]), **sent)
    one = row(judge(REQUEST, cluster(by_udp("Cluster"), READY), [on_to]), "n1")
    assert (one.outcome, one.source, one.judgement) == ("timeout", "node", "unknown")
    assert one.notes[-2:] == (
        UNHEARD, "the node sent it on to 10.244.1.5, and nothing came back",
    )  # fmt: skip
    report = judge(REQUEST, cluster(by_udp(), READY), [on_to])
    assert row(report, "n1").judgement == "contradicted"  # Local, and the source is lost
    # A node that should not serve does, whether the server answers or not.
    on_to = udp("n2", SILENT, source_seen=ip_address(ADDRESSES["n1"]), **sent)
    report = judge(REQUEST, cluster(by_udp(), READY), [on_to])
    assert row(report, "n2").judgement == "contradicted"
    assert report.findings[0].title == (
        f"n2 sends on to 10.244.1.5 what comes at {VIP}:80/UDP although "
        "n2 has no ready local endpoint"
    )


def test_the_same_address_over_another_protocol_is_another_services() -> None:
    """The rules of 192.0.2.77:80 are for TCP: they do not show that kube-proxy serves UDP there."""
    bare = on("n1", "ebpfnet-node lb", "")
    settings, more = cilium(), (rules("n1", "local.node1"), bare)
    by_tcp = judge(REQUEST, cluster(service("Cluster"), READY, settings=settings, more=more))
    assert row(by_tcp, "n1").expected.source == "node"
    report = judge(REQUEST, cluster(by_udp("Cluster"), READY, settings=settings, more=more))
    assert row(report, "n1").expected.source_why == "every endpoint is on the node itself"


def test_a_node_without_an_address_of_the_family_is_not_known() -> None:
    nodes = (node("n1", dual=True), node("n2"), node("n3", dual=True))
    web = service("Cluster", ingress=[{"ip": VIP}, {"ip": VIP6}])
    plan = judge(REQUEST, cluster(web, READY, endpoint("n1", "fd00:1::5"), nodes=nodes))
    told = {(r.target.version, r.node): r for r in plan.rows}
    assert {key: r.expected.answers.value for key, r in told.items()} == {
        (4, "n1"): "yes", (4, "n2"): "yes", (4, "n3"): "yes",
        (6, "n1"): "yes", (6, "n2"): "unknown", (6, "n3"): "yes",
    }  # fmt: skip
    why = "the node has no InternalIP with an IPv6 address to send to"
    assert why in told[6, "n2"].notes
    assert why not in told[4, "n2"].notes
    lonely = (node("n1", dual=True), node("n2"))
    plan = judge(REQUEST, cluster(web, READY, endpoint("n1", "fd00:1::5"), nodes=lonely))
    one = next(r for r in plan.rows if (r.target.version, r.node) == (6, "n1"))
    assert one.expected.why == "there is no other node with an IPv6 address to send from"


def test_a_network_that_drops_one_family_alone() -> None:
    nodes = tuple(node(name, dual=True) for name in ADDRESSES)
    web = service("Cluster", ingress=[{"ip": VIP}, {"ip": VIP6}])
    bundle = cluster(web, READY, endpoint("n1", "fd00:1::5"), nodes=nodes)
    four, six = judge(REQUEST, bundle).targets
    assert (four.version, six.version) == (4, 6)
    tries = [attempt(name, target=four, seen=ADDRESSES[name]) for name in ADDRESSES]
    tries += [attempt(name, SILENT, target=six) for name in ADDRESSES]
    report = judge(REQUEST, bundle, tries)
    assert [f.title for f in report.findings if f.severity == "warning"] == [
        "none of the 3 nodes that should answer does over IPv6"
    ]
    assert [r.judgement for r in report.rows] == ["as-asked"] * 3 + ["contradicted"] * 3


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
