"""Contradictions name their likely cause, with the lines of the node that prove it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.cilium import Backend, Frontend, LocalEndpoint, PolicyEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle, Record
from kubectl_ebpfnet.model.kernel import Counter, Link
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.path import Finding, Severity
from kubectl_ebpfnet.model.probe import AttemptOutcome, How, Judgement, SourceFate
from kubectl_ebpfnet.model.protocol import codec
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    REQUEST,
    SAMPLES,
    TARGET,
    VIP,
    attempt,
    by_udp,
    check,
    cilium,
    cluster,
    endpoint,
    node,
    on,
    pod,
    rules,
    service,
)

BACKEND = "10.244.0.77"
READY = endpoint("n1", BACKEND)
SILENT = AttemptOutcome.TIMEOUT


def findings(bundle: Bundle, *attempts: Any, checks: tuple[Any, ...] = ()) -> tuple[Finding, ...]:
    """What is found."""
    return judge(REQUEST, bundle, attempts, checks).findings


def only(bundle: Bundle, *attempts: Any, checks: tuple[Any, ...] = ()) -> Finding:
    """The one thing that is found."""
    (found,) = findings(bundle, *attempts, checks=checks)
    return found


def facts(name: str, question: str, *values: Any) -> Record:
    """What a node side answered."""
    return on(name, f"ebpfnet-node {question}", b"".join(map(codec.line_of, values)))


def proof(bundle: Bundle, finding: Finding) -> list[str]:
    """The quoted lines of a finding; each must stand in its record."""
    for item in finding.evidence:
        said = bundle.numbered(item.record).stdout.read().decode()
        if item.lines:
            lines = said.splitlines()
            assert [lines[n - 1].strip()[:400] for n in item.lines] == list(item.excerpt)
    return [line for item in finding.evidence for line in item.excerpt]


def with_rule(name: str, rule: str, table: str = "filter", file: str = "local.node1") -> Record:
    """The node's rules with one more, first in its chain."""
    text = (SAMPLES / f"kube-proxy-1.20-{file}.rules").read_text().replace("192.0.2.77", VIP)
    if table == "raw":
        text = f"*raw\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n{text}"
    else:
        head, _, rest = text.partition(f"*{table}\n")
        at = rest.index("[", rest.index("\n[")) if table == "filter" else rest.index("\n[") + 1
        text = f"{head}*{table}\n{rest[:at]}{rule}\n{rest[at:]}"
    return on(name, "iptables-save -c", text)


def test_nothing_to_say_of_a_service_that_behaves() -> None:
    bundle = cluster(service(), READY, more=(rules("n1", "local.node1"),))
    assert findings(bundle, attempt("n1"), attempt("n2", SILENT), attempt("n3", SILENT)) == ()


@pytest.mark.parametrize(
    ("rule", "table", "said"),
    [
        (f"-A FORWARD -d {BACKEND}/32 -p tcp -j DROP", "filter", "a FORWARD rule there drops it"),
        (f"-A FORWARD -s {BACKEND}/32 -j DROP", "filter", "a FORWARD rule there drops its answer"),
        (f"-A PREROUTING -d {VIP}/32 -j DROP", "raw", "a rule there drops it as it comes in"),
    ],
)
def test_a_drop_rule_on_the_node(rule: str, table: str, said: str) -> None:
    bundle = cluster(service(), READY, more=(with_rule("n1", rule, table),))
    found = only(bundle, attempt("n1", SILENT))
    assert found.severity is Severity.ERROR
    assert found.title == (
        f"n1 does not answer at {VIP}:80/TCP (timeout) although n1 has 1 ready local endpoint"
    )
    assert found.detail.lower().startswith(f"{said}: {rule}.".lower())
    assert rule in proof(bundle, found)


def test_a_drop_rule_on_the_node_of_the_endpoint() -> None:
    rule = f"-A FORWARD -d {BACKEND}/32 -j DROP"
    far = with_rule("n1", rule)
    web = service("Cluster")
    bundle = cluster(web, READY, more=(far, rules("n2", "local.node1")))
    found = only(bundle, attempt("n2", SILENT))
    assert found.detail == f"A FORWARD rule on n1, where the endpoint is, drops it: {rule}."
    assert rule in proof(bundle, found)


def test_rules_of_kube_proxy_that_are_behind() -> None:
    """n1 has an endpoint now; its rules are those of a node without one."""
    bundle = cluster(service(), READY, more=(rules("n1", "local.node2"),))
    found = only(bundle, attempt("n1", SILENT))
    assert found.detail.startswith("kube-proxy's rule there refuses it: -A KUBE-XLB")
    assert "has no local endpoints" in proof(bundle, found)[-1]


def test_kube_proxy_has_no_rule() -> None:
    bare = on("n1", "iptables-save -c", rules("n1", "local.node1").stdout.read().decode()
              .replace(VIP, "203.0.113.99"))  # fmt: skip
    found = only(cluster(service(), READY, more=(bare,)), attempt("n1", SILENT))
    assert found.detail.startswith(f"kube-proxy there has no rule for {VIP}:80")
    assert found.evidence[0].record == 7


def test_kube_proxy_sends_it_to_an_endpoint_that_is_gone() -> None:
    bundle = cluster(service(), endpoint("n1"), more=(rules("n1", "local.node1"),))
    found = only(bundle, attempt("n1", SILENT))
    assert found.detail.startswith("kube-proxy there sends it to 10.244.0.77:8080, which is no")
    assert any(line.endswith("-j KUBE-FW-MCS76C735KVPMPJQ") for line in proof(bundle, found))


def frontend(*backends: str) -> Frontend:
    """Cilium's entry for the Service."""
    return Frontend(
        ip_address(VIP), 80, TCP, False, "LoadBalancer", frozenset(), 7,
        tuple(Backend(ip_address(b), 8080) for b in backends),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], f"Cilium's load-balancer there has no entry for {VIP}:80."),
        ([frontend()], f"Cilium's entry for {VIP}:80 there has no backend."),
        ([frontend("10.244.9.9")], "Cilium there sends it to 10.244.9.9:8080, which is no"),
    ],
)
def test_cilium_is_behind(entries: list[Frontend], said: str) -> None:
    bundle = cluster(service(), READY, settings=cilium(), more=(facts("n1", "lb", *entries),))
    found = only(bundle, attempt("n1", SILENT))
    assert found.detail.startswith(said)
    assert {e.record for e in found.evidence} == {7}


def counters(name: str, value: int) -> Record:
    """Packets that rp_filter dropped."""
    return facts(name, "counters", Counter("netstat", "TcpExt.IPReversePathFilter", value))


@pytest.mark.parametrize(
    ("looks", "said"),
    [([4], "4 packets since boot"), ([4, 9], "5 packets meanwhile"), ([4, 4], ""), ([0], "")],
)
def test_a_strict_rp_filter(looks: list[int], said: str) -> None:
    more = (rules("n1", "local.node1"), *(counters("n1", value) for value in looks))
    bundle = cluster(service(), READY, more=more)
    found = only(bundle, attempt("n1", SILENT))
    if said:
        assert found.detail.startswith(f"rp_filter there dropped {said}")
        assert '"TcpExt.IPReversePathFilter"' in proof(bundle, found)[0]
    else:
        assert found.detail.startswith("Nothing that was read of n1 explains it")


def test_what_is_sure_is_not_mixed_with_guesses() -> None:
    rule = f"-A FORWARD -d {BACKEND}/32 -p tcp -j DROP"
    more = (with_rule("n1", rule), counters("n1", 4))
    found = only(cluster(service(), READY, more=more), attempt("n1", SILENT))
    assert "rp_filter" not in found.detail
    grown = (*more, counters("n1", 6))
    found = only(cluster(service(), READY, more=grown), attempt("n1", SILENT))
    assert "rp_filter there dropped 2 packets meanwhile" in found.detail


def test_how_long_was_waited() -> None:
    found = only(cluster(service(), READY), attempt("n1", SILENT, detail="silence for 2 s"))
    assert f"{VIP}:80/TCP (silence for 2 s) although" in found.title


def test_an_endpoint_without_programs() -> None:
    more = (
        facts("n1", "links", Link(9, "lxcabc", "veth")),
        facts("n1", "endpoints", LocalEndpoint(ip_address(BACKEND), False, 55, ifindex=9)),
        facts("n1", "attachments", Attachment("tcx/ingress", "eth0", "cil_from_netdev")),
        facts("n1", "lb", frontend(BACKEND)),
    )
    bundle = cluster(service(), READY, settings=cilium(), more=more)
    found = only(bundle, attempt("n1", SILENT))
    assert found.detail.startswith("No program of Cilium is attached to lxcabc")
    there = facts("n1", "attachments", Attachment("tcx/ingress", "lxcabc", "cil_from_container"))
    bundle = cluster(service(), READY, settings=cilium(), more=(*more[:2], there, more[3]))
    assert "No program" not in only(bundle, attempt("n1", SILENT)).detail


@pytest.mark.parametrize(
    ("allowed", "denies"),
    [((6,), False), ((0,), False), ((1395,), True), ((), False)],
    ids=["nodes", "anybody", "another pod", "no map was read"],
)
def test_a_policy_that_denies_the_probe(allowed: tuple[int, ...], denies: bool) -> None:
    entries = [PolicyEntry(55, False, "ingress", identity, 0) for identity in allowed]
    more = (
        facts("n1", "endpoints", LocalEndpoint(ip_address(BACKEND), False, 55, ifindex=9)),
        facts("n1", "policy", *entries),
        facts("n1", "lb", frontend(BACKEND)),
    )
    bundle = cluster(service(), READY, settings=cilium(), more=more)
    found = only(bundle, attempt("n1", SILENT))
    said = "The ingress policy of endpoint 55 (web-n1) on n1 denies port 8080 to"
    assert (said in found.detail) is denies


def test_a_pod_that_is_not_ready() -> None:
    bundle = cluster(
        service(), READY, pods=(pod("n1", ready=False),), more=(rules("n1", "local.node1"),)
    )
    found = only(bundle, attempt("n1", SILENT))
    assert found.detail == "Pod web-n1 is an endpoint but not Ready (NotYet)."
    assert '"name": "web-n1"' in proof(bundle, found)[0]


def test_an_endpoint_that_resets() -> None:
    found = only(cluster(service(), READY), attempt("n1", AttemptOutcome.REFUSED))
    assert found.title.startswith(f"n1 does not answer at {VIP}:80/TCP (refused) although")
    assert "nothing listens on its port 8080 (targetPort)" in found.detail


def test_who_refuses_by_icmp() -> None:
    """kube-proxy rejects TCP and UDP so; an endpoint answers UDP so where nothing listens."""
    said = "ICMP port unreachable, said by 192.0.2.11"
    found = only(cluster(service(), READY), attempt("n1", AttemptOutcome.REFUSED, detail=said))
    assert f"(refused: {said})" in found.title
    assert found.detail == f"{said}: a rule on the way rejects it."
    target = replace(TARGET, protocol=UDP)
    by_icmp = attempt("n1", AttemptOutcome.REFUSED, target=target, detail=said)
    found = only(cluster(by_udp(), READY), by_icmp)
    assert found.detail == (
        f"{said}: an endpoint says that nothing listens on its port 8080 (targetPort), "
        "or a rule rejects it."
    )


def test_a_drop_rule_is_proof_where_silence_over_udp_is_none() -> None:
    target = replace(TARGET, protocol=UDP)
    silent = attempt("n1", SILENT, target=target)
    assert findings(cluster(by_udp(), READY), silent) == ()
    for protocol, count in (("udp", 1), ("tcp", 0)):
        rule = f"-A FORWARD -d {BACKEND}/32 -p {protocol} -j DROP"
        text = with_rule("n1", rule).stdout.read().decode().replace("-p tcp -m", "-p udp -m")
        bundle = cluster(by_udp(), READY, more=(on("n1", "iptables-save -c", text),))
        report = judge(REQUEST, bundle, [silent])
        assert len(report.findings) == count
        one = next(r for r in report.rows if r.node == "n1")
        assert one.judgement == ("contradicted" if count else "unknown")
    assert findings(bundle, attempt("n1", target=target)) == ()


def test_where_a_node_sent_what_nobody_answered() -> None:
    """Its conntrack shows that it got past the node's own rules."""
    tracked = facts("n1", "conntrack", entry(reply_to=ADDRESSES["n1"]))
    bundle = cluster(service("Cluster"), READY, more=(tracked,))
    found = only(bundle, attempt("n1", SILENT, backend=ip_address(BACKEND)))
    assert found.detail == (
        f"The node sends it on to {BACKEND}:8080 from {ADDRESSES['n1']}:40000, and nothing comes "
        "back: it is lost there, or on the way there and back."
    )
    assert len(proof(bundle, found)) == 1


def test_a_node_that_is_not_reached() -> None:
    lost = attempt("n1", AttemptOutcome.UNREACHABLE, detail="no answer to ARP for 192.0.2.11")
    found = only(cluster(service(), READY), lost)
    assert "(unreachable: no answer to ARP for 192.0.2.11)" in found.title
    assert found.detail == "No answer to ARP for 192.0.2.11."


def test_what_was_not_read_is_named() -> None:
    found = only(cluster(service(), READY), attempt("n1", SILENT))
    assert found.detail.startswith("No cause was found; not read of n1: netfilter's rules (")
    assert "counters (" in found.detail


def test_some_attempts_fail() -> None:
    bundle = cluster(service("Cluster"), READY, endpoint("n2"))
    found = only(bundle, attempt("n1", seen=""), attempt("n1", SILENT))
    assert found.title == (
        f"n1 answers 1 of 2 attempts at {VIP}:80/TCP (timeout) although the Service has "
        "2 ready endpoints"
    )


def test_the_address_is_a_nodes_own() -> None:
    owner = node("n2")
    owner["status"]["addresses"].append({"type": "ExternalIP", "address": VIP})
    bundle = cluster(service(), READY, nodes=(node("n1"), owner))
    found = only(bundle, attempt("n2"))
    assert found.title == f"n2 answers at {VIP}:80/TCP although n2 has no ready local endpoint"
    assert found.detail == f"{VIP} is an address of node n2 itself."


def test_rules_of_another_policy() -> None:
    text = rules("n2", "cluster.node2").stdout.read().decode().replace("-s 203.0.113.0/24 ", "")
    bundle = cluster(service(), READY, more=(on("n2", "iptables-save -c", text),))
    found = only(bundle, attempt("n2", seen=""))
    assert found.detail.startswith("kube-proxy's rules there send it to 10.244.0.77:8080: they are")
    assert "loadbalancer IP" in proof(bundle, found)[0]


def test_rules_that_refuse_by_now() -> None:
    bundle = cluster(service(), READY, more=(rules("n2", "local.node2"),))
    found = only(bundle, attempt("n2"))
    assert found.detail.startswith("kube-proxy's rule there refuses it now (-A KUBE-XLB")


def test_cilium_sends_it_elsewhere() -> None:
    bundle = cluster(
        service(), READY, settings=cilium(), more=(facts("n2", "lb", frontend(BACKEND)),)
    )
    found = only(bundle, attempt("n2"))
    assert found.detail.startswith("Cilium's entry there has 10.244.0.77:8080: it is behind")
    assert found.evidence[0].record == 7


def entry(source: str = ADDRESSES["n2"], reply_to: str = "") -> ConntrackEntry:
    """conntrack of the probe's flow through n1, sent on to the endpoint."""
    return ConntrackEntry(
        original=Flow(TCP, ip_address(source), 40000, ip_address(VIP), 80),
        reply=Flow(TCP, ip_address(BACKEND), 8080, ip_address(reply_to or source), 40000),
    )


def test_a_conntrack_entry_that_outlives_its_rules() -> None:
    ready = endpoint("n2")
    bundle = cluster(service(), ready, more=(facts("n1", "conntrack", entry()),))
    found = only(bundle, attempt("n1"))
    assert found.detail.startswith("Conntrack there sends the flow to 10.244.0.77:8080")
    assert len(proof(bundle, found)) == 1


def test_the_source_is_lost_to_kube_proxy() -> None:
    """The Service is Local, the rules are those of Cluster."""
    text = rules("n1", "cluster.node2").stdout.read().decode().replace("-s 203.0.113.0/24 ", "")
    bundle = cluster(service(), READY, more=(on("n1", "iptables-save -c", text),))
    found = only(bundle, attempt("n1", seen=ADDRESSES["n1"]))
    assert found.title == (
        f"n1 at {VIP}:80/TCP: the client's address is lost, backends see {ADDRESSES['n1']}, "
        "although externalTrafficPolicy Local does not masquerade"
    )
    assert found.detail.startswith("kube-proxy's rule there has it masqueraded: -A KUBE-FW-")
    assert any(line.endswith("-j KUBE-MARK-MASQ") for line in proof(bundle, found))


def test_the_source_is_lost_to_somebodys_rule() -> None:
    rule = "-A POSTROUTING -d 10.244.0.0/16 -j MASQUERADE"
    bundle = cluster(service(), READY, more=(with_rule("n1", rule, "nat"),))
    found = only(bundle, attempt("n1", seen="10.244.1.1"))
    assert found.detail == f"A rule of netfilter there rewrites the source: {rule}."
    assert rule in proof(bundle, found)


def test_the_source_is_lost_by_conntracks_word() -> None:
    tracked = facts("n1", "conntrack", entry(reply_to=ADDRESSES["n1"]))
    bundle = cluster(service(), READY, more=(tracked,))
    found = only(bundle, attempt("n1", seen=ADDRESSES["n1"]))
    assert found.detail == f"Conntrack there has it leave as {ADDRESSES['n1']}:40000."


def test_the_source_is_lost_and_nobody_knows_why() -> None:
    found = only(cluster(service(), READY), attempt("n1", seen=ADDRESSES["n1"]))
    assert found.detail == "No rule that was read explains it."


def test_sources_that_were_not_expected() -> None:
    web = service("Cluster")
    kept = only(cluster(web, READY), attempt("n1"))
    assert kept.severity is Severity.INFO
    assert "preserved, which was not to be expected" in kept.title
    other = only(cluster(web, READY), attempt("n1", seen="203.0.113.9"))
    assert other.severity is Severity.WARNING
    assert "203.0.113.9, neither the client's address nor the node's" in other.title


def test_a_source_that_is_preserved_for_some_attempts_is_no_contradiction() -> None:
    tries = [attempt("n1"), attempt("n1", seen=ADDRESSES["n1"])]
    report = judge(REQUEST, cluster(service("Cluster"), READY), tries)
    (row,) = [one for one in report.rows if one.node == "n1"]
    assert (row.source, row.judgement) == (SourceFate.EITHER, Judgement.AS_ASKED)
    (found,) = report.findings
    assert found.severity is Severity.INFO
    assert "preserved for some attempts and not for others" in found.title
    assert found.detail.endswith("but this node did not always.")


@pytest.mark.parametrize(
    ("answer", "severity", "title", "detail"),
    [
        (check("n1", 503, 0), "error", "says 503, with 1 ready local endpoint 200 is due",
         "It counts 0 local endpoints: the service proxy is behind"),
        (check("n1", None, error="silence for 5 s"), "error",
         "does not answer, with 1 ready local endpoint 200 is due",
         "No answer came (silence for 5 s): a rule or the host firewall"),
        (check("n1", None, error="connection refused", refused=True), "error",
         "does not answer, with 1 ready local endpoint 200 is due",
         "Nothing serves the port (connection refused)"),
        (check("n1", 200, 3), "info", "counts 3, there are 1 ready local endpoint", "The status"),
        (check("n2", 200, 1), "error", "says 200, with 0 ready local endpoints 503 is due",
         "Load-balancers send clients to a node that has nobody to answer"),
        (check("n2", None, error="timed out"), "info", "does not answer: timed out",
         "For load-balancers that is as good"),
    ],
)  # fmt: skip
def test_health_checks(answer, severity, title, detail) -> None:
    web = service(externalIPs=["198.51.100.9"])  # two targets, one finding
    found = only(cluster(web, READY), checks=(answer,))
    assert found.severity == severity
    assert found.title == f"{answer.node}: the health check on port 31234 {title}"
    assert found.detail.startswith(detail)


def test_a_network_that_drops_what_no_node_owns() -> None:
    bundle = cluster(service("Cluster"), READY)
    tries = [attempt(name, SILENT) for name in ADDRESSES]
    found = findings(bundle, *tries)
    assert [f.severity for f in found] == ["error", "error", "error", "warning"]
    assert found[-1].title == "none of the 3 nodes that should answer does"
    assert "source/destination checks" in found[-1].detail
    assert all(f.severity == "error" for f in findings(bundle, attempt("n1", SILENT)))


def test_the_node_ports_answer() -> None:
    request = replace(REQUEST, node_ports=True)
    bundle = cluster(service("Cluster"), READY)
    vip, port = judge(request, bundle).targets
    tries = [attempt(name, SILENT, target=vip) for name in ("n1", "n2")]
    tries += [attempt(name, seen="", target=port, how=How.NODE_PORT) for name in ("n1", "n2")]
    titles = [f.title for f in judge(request, bundle, tries).findings]
    assert "none of the 2 nodes that should answer does; the node ports do answer" in titles


def test_source_ranges_are_told_once() -> None:
    bundle = cluster(service(loadBalancerSourceRanges=["203.0.113.0/24"]), READY)
    found = only(bundle, *(attempt(name, SILENT) for name in ADDRESSES))
    assert found.severity is Severity.INFO
    assert "leaves the probe's address out" in found.title


def test_source_ranges_that_nobody_enforces() -> None:
    web = service(loadBalancerSourceRanges=["203.0.113.0/24"])
    bundle = cluster(web, READY, more=(rules("n1", "local.node1"),))
    found = findings(bundle, attempt("n1"))
    assert found[0].title.startswith(f"n1 answers at {VIP}:80/TCP although loadBalancerSourceRange")
    assert found[0].detail.startswith("kube-proxy's rules there send it to 10.244.0.77:8080")


def test_an_excluded_node_is_information() -> None:
    label = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    nodes = (node("n1", labels=label), node("n2"))
    found = only(cluster(service(), READY, nodes=nodes), attempt("n1", SILENT))
    assert found.severity is Severity.INFO
    assert found.detail.endswith("Load-balancers send nothing here.")
