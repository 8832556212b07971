"""What a Service asks of a node: policy x endpoints x who balances, one row of a table each."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.model.cilium import Frontend
from kubectl_ebpfnet.model.evidence import Bundle, bundle_of
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.probe import Endpoints, Expectation, NodeRow, TargetKind
from kubectl_ebpfnet.model.protocol import codec
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    CHECK,
    KUBE_PROXY,
    REQUEST,
    VIP,
    api,
    by_udp,
    cilium,
    cluster,
    config,
    endpoint,
    node,
    on,
    pod,
    service,
)

SCENARIOS = Path(__file__).parents[2] / "scenarios"
READY = endpoint("n1")
NOT_READY = endpoint("n1", ready=False)
LEAVING = endpoint("n1", ready=False, serving=True, terminating=True)
GONE = endpoint("n1", ready=False, serving=False, terminating=True)


def rows(bundle: Bundle, **request: object) -> dict[str, NodeRow]:
    """The plan's rows by node."""
    plan = judge(replace(REQUEST, **request), bundle)
    return {row.node: row for row in plan.rows}


def expected(bundle: Bundle, name: str, **request: object) -> Expectation:
    """What is expected of one node."""
    return rows(bundle, **request)[name].expected


# policy, endpoints, node → answers, health status and count
ANSWERS = [
    ("Local", [READY], "n1", "yes", 200, 1),
    ("Local", [READY], "n2", "no", 503, 0),
    ("Local", [READY, endpoint("n1", "10.244.1.6")], "n1", "yes", 200, 2),
    ("Local", [NOT_READY], "n1", "no", 503, 0),
    ("Local", [LEAVING], "n1", "yes", 503, 0),
    ("Local", [LEAVING], "n2", "no", 503, 0),
    ("Local", [LEAVING, endpoint("n2")], "n1", "yes", 503, 0),
    ("Local", [GONE], "n1", "no", 503, 0),
    ("Local", [], "n1", "no", 503, 0),
    ("Cluster", [READY], "n1", "yes", None, None),
    ("Cluster", [READY], "n2", "yes", None, None),
    ("Cluster", [NOT_READY], "n2", "no", None, None),
    ("Cluster", [LEAVING], "n2", "yes", None, None),
    ("Cluster", [LEAVING, NOT_READY], "n2", "yes", None, None),
    ("Cluster", [], "n2", "no", None, None),
]


@pytest.mark.parametrize("settings", [KUBE_PROXY, cilium()], ids=["kube-proxy", "cilium"])
@pytest.mark.parametrize(("policy", "ends", "name", "answers", "status", "count"), ANSWERS)
def test_who_answers(settings, policy, ends, name, answers, status, count) -> None:
    found = expected(cluster(service(policy), *ends, settings=settings), name)
    assert (found.answers, found.health_status, found.health_count) == (answers, status, count)
    assert found.why


LOCAL, REMOTE = endpoint("n1"), endpoint("n2")
HOST = endpoint("n1", ADDRESSES["n1"])
SOURCES = [
    ("Local", [LOCAL], KUBE_PROXY, "preserved"),
    ("Local", [LOCAL], cilium("snat"), "preserved"),
    ("Local", [LOCAL], config(), "preserved"),
    ("Cluster", [LOCAL], KUBE_PROXY, "node"),
    ("Cluster", [REMOTE], KUBE_PROXY, "node"),
    ("Cluster", [HOST], KUBE_PROXY, "preserved"),
    ("Cluster", [HOST, REMOTE], KUBE_PROXY, "either"),
    ("Cluster", [LOCAL], cilium("snat"), "preserved"),
    ("Cluster", [REMOTE], cilium("snat"), "node"),
    ("Cluster", [LOCAL, REMOTE], cilium("snat"), "either"),
    ("Cluster", [REMOTE], cilium("dsr"), "preserved"),
    ("Cluster", [REMOTE], cilium("hybrid"), "preserved"),
    ("Cluster", [REMOTE], cilium(""), "unknown"),
    ("Cluster", [LOCAL], cilium(""), "preserved"),
    ("Cluster", [REMOTE], cilium("annotation"), "unknown"),
    ("Cluster", [REMOTE], config(), "unknown"),
    ("Cluster", [], KUBE_PROXY, "unknown"),
]


@pytest.mark.parametrize(("policy", "ends", "settings", "source"), SOURCES)
def test_what_becomes_of_the_source(policy, ends, settings, source) -> None:
    found = expected(cluster(service(policy), *ends, settings=settings), "n1")
    assert found.source == source
    assert bool(found.source_why) == bool(ends)


# Cilium's mode, protocol, endpoints → the source that n1's backends see (Cilium's
# Documentation/network/kubernetes/kubeproxy-free.rst; ../shared/reference/cilium-facts.md 5.1)
MODES = [
    ("snat", "TCP", [LOCAL], "preserved"),
    ("snat", "TCP", [REMOTE], "node"),
    ("snat", "UDP", [REMOTE], "node"),
    ("dsr", "TCP", [LOCAL], "preserved"),
    ("dsr", "TCP", [REMOTE], "preserved"),
    ("dsr", "TCP", [LOCAL, REMOTE], "preserved"),
    ("dsr", "UDP", [REMOTE], "preserved"),
    ("hybrid", "TCP", [REMOTE], "preserved"),
    ("hybrid", "UDP", [LOCAL], "preserved"),
    ("hybrid", "UDP", [REMOTE], "node"),
    ("hybrid", "UDP", [LOCAL, REMOTE], "either"),
]


@pytest.mark.parametrize(("mode", "protocol", "ends", "source"), MODES)
def test_what_ciliums_modes_do_with_the_source(mode, protocol, ends, source) -> None:
    make = {"TCP": service, "UDP": by_udp}[protocol]
    found = expected(cluster(make("Cluster"), *ends, settings=cilium(mode)), "n1")
    assert (found.answers, found.source) == ("yes", source)
    found = expected(cluster(make("Local"), LOCAL, REMOTE, settings=cilium(mode)), "n1")
    assert (found.answers, found.source) == ("yes", "preserved")


@pytest.mark.parametrize("mode", ["snat", "dsr", "hybrid"])
@pytest.mark.parametrize("make", [service, by_udp], ids=["tcp", "udp"])
def test_local_needs_an_endpoint_in_every_mode(make, mode: str) -> None:
    found = rows(cluster(make("Local"), REMOTE, settings=cilium(mode)))
    assert {name: row.expected.answers for name, row in found.items()} == {
        "n1": "no", "n2": "yes", "n3": "no",
    }  # fmt: skip


@pytest.mark.parametrize("make", [service, by_udp], ids=["tcp", "udp"])
def test_kube_proxy_masquerades_udp_as_tcp(make) -> None:
    assert expected(cluster(make("Cluster"), LOCAL, REMOTE), "n1").source == "node"
    assert expected(cluster(make("Local"), LOCAL, REMOTE), "n1").source == "preserved"


ANNOTATION = "service.cilium.io/forwarding-mode"
DSR = Frontend(ip_address(VIP), 80, TCP, False, "LoadBalancer", frozenset({"dsr"}), 7, ())
# own mode, whether the agent heeds it, Cilium's map → the mode that holds
OWN_MODES = [
    ("dsr", {"bpf_lb_mode_annotation": "true"}, None, "DSR"),
    ("dsr", {"bpf_lb_mode_annotation": "false"}, None, "SNAT"),
    ("snat", {"bpf_lb_mode_annotation": "false"}, None, "SNAT"),
    ("dsr", {}, DSR, "DSR"),
    ("dsr", {}, replace(DSR, flags=frozenset()), ""),
    ("dsr", {}, None, ""),
]


@pytest.mark.parametrize(("own", "settings", "entry", "mode"), OWN_MODES)
def test_a_service_may_have_a_mode_of_its_own(own, settings, entry, mode) -> None:
    how = config(kube_proxy_replacement="true", bpf_lb_mode="snat", **settings)
    more = (on("n1", "ebpfnet-node lb", codec.line_of(entry)),) if entry is not None else ()
    web = service("Cluster", annotations={ANNOTATION: own})
    nodes = (node("n1"), node("n3"))
    plan = judge(REQUEST, cluster(web, REMOTE, settings=how, nodes=nodes, more=more))
    (row, _) = plan.rows
    assert row.expected.source == {"DSR": "preserved", "SNAT": "node", "": "unknown"}[mode]
    if not entry:
        assert plan.datapath == f"Cilium {mode}".strip()


def test_the_agent_lists_the_annotations_that_it_heeds() -> None:
    """Recorded from Cilium 1.20-dev, whose settings do not have bpf-lb-mode-annotation on."""
    recorded = open_bundle(SCENARIOS / "vxlan-kpr")
    status = next(r for r in recorded.records if r.argv == ("cilium-dbg", "status", "-o", "json"))
    said = status.stdout.read().decode()
    assert '"service.cilium.io/src-ranges-policy"' in said
    web = service("Cluster", annotations={ANNOTATION: "dsr"})
    nodes = (node("n1"), node("n3"))
    for text, source in (
        (said, "node"),
        (said.replace("service.cilium.io/src-ranges-policy", ANNOTATION), "preserved"),
    ):
        more = (on("n1", "cilium-dbg status -o json", text),)
        bundle = cluster(web, REMOTE, settings=config(), nodes=nodes, more=more)
        assert expected(bundle, "n1").source == source


@pytest.mark.parametrize(
    ("more", "answers"),
    [
        ({"enable_host_firewall": "true", "routing_mode": "tunnel"}, "unknown"),
        ({"enable_host_firewall": "true", "routing_mode": "native"}, "yes"),
        ({"enable_host_firewall": "false", "routing_mode": "tunnel"}, "yes"),
        ({"routing_mode": "tunnel"}, "yes"),
    ],
)
def test_with_the_host_firewall_answers_come_back_in_the_tunnel(
    more: dict[str, str], answers: str
) -> None:
    """And so into the stack of the node that sends, where the probe hears nothing."""
    settings = config(kube_proxy_replacement="true", bpf_lb_mode="snat", **more)
    found = expected(cluster(service("Cluster"), REMOTE, settings=settings), "n1")
    assert found.answers == answers
    assert ("in the tunnel" in found.why) == (answers == "unknown")


def test_with_dsr_an_endpoint_on_the_node_that_sends_is_not_heard() -> None:
    """It answers the client from its own node, which is the one that sends: not over the wire."""
    dsr = cilium("dsr")
    assert expected(cluster(service("Cluster"), REMOTE, settings=dsr), "n1").answers == "yes"
    found = expected(cluster(service("Cluster"), REMOTE, settings=dsr), "n1", from_node="n2")
    assert found.answers == "unknown"
    assert "an endpoint on the node that sends" in found.why
    everywhere = [endpoint(name) for name in ADDRESSES]
    assert (
        expected(cluster(service("Cluster"), *everywhere, settings=dsr), "n1").answers == "unknown"
    )
    # Local, SNAT, and UDP in hybrid mode come back by way of the node that was sent to.
    assert expected(cluster(service(), *everywhere, settings=dsr), "n1").answers == "yes"
    by_snat = cluster(service("Cluster"), *everywhere, settings=cilium("snat"))
    assert expected(by_snat, "n1").answers == "yes"
    hybrid = cluster(by_udp("Cluster"), *everywhere, settings=cilium("hybrid"))
    assert expected(hybrid, "n1").answers == "yes"


@pytest.mark.parametrize(
    ("version", "answers"),
    [("v1.20.2", "no"), ("v1.22.0", "unknown"), ("v1.25.16", "unknown"), ("v1.26.0", "yes"),
     ("v1.31.2-gke.1", "yes"), ("", "unknown")],
)  # fmt: skip
def test_terminating_endpoints_are_used_since_1_26(version: str, answers: str) -> None:
    nodes = (node("n1", version=version), node("n2"))
    assert expected(cluster(service(), LEAVING, nodes=nodes), "n1").answers == answers
    by_cilium = cluster(service(), LEAVING, nodes=nodes, settings=cilium())
    assert expected(by_cilium, "n1").answers == "yes"


@pytest.mark.parametrize(
    ("ranges", "answers"),
    [(["203.0.113.0/24"], "no"), (["192.0.2.0/24"], "yes"), ([" 192.0.2.0/24 "], "yes"),
     (["fd00::/8"], "yes"), (["203.0.113.0/24", "192.0.2.0/28"], "yes"),
     (["192.0.2.12/32"], "unknown"), ([], "yes")],
)  # fmt: skip
def test_source_ranges(ranges: list[str], answers: str) -> None:
    bundle = cluster(service(loadBalancerSourceRanges=ranges), READY)
    assert expected(bundle, "n1").answers == answers


def test_source_ranges_hold_for_the_load_balancers_addresses_alone() -> None:
    web = service(loadBalancerSourceRanges=["203.0.113.0/24"], externalIPs=["198.51.100.9"])
    plan = judge(replace(REQUEST, node_ports=True), cluster(web, READY))
    found = {r.target.kind: r.expected.answers for r in plan.rows if r.node == "n1"}
    assert found == {
        TargetKind.INGRESS: "no", TargetKind.EXTERNAL_IP: "yes", TargetKind.NODE_PORT: "yes",
    }  # fmt: skip


def test_ranges_depend_on_the_node_that_sends() -> None:
    web = service(loadBalancerSourceRanges=["192.0.2.12/32"])
    assert expected(cluster(web, READY), "n1", from_node="n2").answers == "yes"
    found = expected(cluster(web, READY), "n1", from_node="n3")
    assert found.answers == "no"
    assert ADDRESSES["n3"] in found.why


def test_no_endpoint_is_the_better_reason() -> None:
    web = service("Cluster", loadBalancerSourceRanges=["203.0.113.0/24"])
    assert expected(cluster(web), "n1").why == "the Service has no ready endpoint"


def test_cilium_can_be_told_to_shut_the_ranges_out() -> None:
    web = service(
        loadBalancerSourceRanges=["192.0.2.0/24"],
        annotations={"service.cilium.io/src-ranges-policy": "deny"},
    )
    assert expected(cluster(web, READY, settings=cilium()), "n1").answers == "no"
    assert expected(cluster(web, READY), "n1").answers == "yes"


def test_published_although_not_ready() -> None:
    web = service(publishNotReadyAddresses=True)
    found = expected(cluster(web, READY, pods=(pod("n1", ready=False),)), "n1")
    assert found.answers == "unknown"
    assert "publishNotReadyAddresses" in found.why
    assert expected(cluster(web, READY, pods=(pod("n1"),)), "n1").answers == "yes"
    assert expected(cluster(web, READY), "n1").answers == "yes"


def test_a_node_that_is_not_ready() -> None:
    nodes = (node("n1", ready=False), node("n2", ready=False))
    found = rows(cluster(service(), READY, nodes=nodes))
    assert found["n1"].expected.answers == "unknown"
    assert "Kubelet stopped posting node status." in found["n1"].expected.why
    assert found["n2"].expected.answers == "no"


def test_excluded_from_load_balancers() -> None:
    label = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    taint = [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]
    nodes = (node("n1", labels=label), node("n2", taints=taint), node("n3"))
    found = rows(cluster(service("Cluster"), READY, nodes=nodes))
    assert "exclude-from-external-load-balancers" in found["n1"].expected.excluded
    assert "ToBeDeletedByClusterAutoscaler" in found["n2"].expected.excluded
    assert found["n3"].expected.excluded == ""
    assert {row.expected.answers for row in found.values()} == {"yes"}


def test_cordoning_excludes_nobody() -> None:
    nodes = (node("n1", unschedulable=True), node("n2"))
    found = expected(cluster(service(), READY, nodes=nodes), "n1")
    assert (found.answers, found.excluded) == ("yes", "")
    assert any("cordoned" in text for text in found.cautions)


def test_one_node_alone() -> None:
    found = expected(cluster(service(), READY, nodes=(node("n1"),)), "n1")
    assert (found.answers, found.why) == ("unknown", "there is no other node to send from")


def test_another_proxy_serves_it() -> None:
    web = service(labels={"service.kubernetes.io/service-proxy-name": "lb9"})
    found = expected(cluster(web, READY), "n1")
    assert found.answers == "unknown"
    assert "lb9" in found.why


def test_a_load_balancer_that_is_a_proxy() -> None:
    web = service(ingress=[{"ip": VIP, "ipMode": "Proxy"}])
    plan = judge(replace(REQUEST, node_ports=True), cluster(web, READY))
    found = {r.target.kind: r.expected.answers for r in plan.rows if r.node == "n1"}
    assert found == {TargetKind.INGRESS: "unknown", TargetKind.NODE_PORT: "yes"}


@pytest.mark.parametrize(
    ("notes", "labels", "answers"),
    [({"service.cilium.io/node": "edge"}, {}, "no"),
     ({"service.cilium.io/node": "edge"}, {"service.cilium.io/node": "edge"}, "yes"),
     ({"service.cilium.io/node-selector": "zone in (a,b)"}, {"zone": "a"}, "yes"),
     ({"service.cilium.io/node-selector": "zone in (a,b)"}, {"zone": "c"}, "no"),
     ({"service.cilium.io/node-selector": "=)("}, {}, "unknown")],
)  # fmt: skip
def test_cilium_can_keep_a_service_off_nodes(notes, labels, answers) -> None:
    web = service("Cluster", annotations=notes)
    nodes = (node("n1", labels=labels), node("n2"))
    bundle = cluster(web, REMOTE, nodes=nodes, settings=cilium())
    assert expected(bundle, "n1").answers == answers
    assert expected(cluster(web, REMOTE, nodes=nodes), "n1").answers == "yes"  # kube-proxy


def test_slices_that_could_not_be_read() -> None:
    records = [r for r in cluster(service()).records if "endpointslices" not in r.argv]
    found = expected(bundle_of(records), "n1")
    assert (found.answers, found.why) == ("unknown", "no EndpointSlice could be read")
    assert found.health_status is None


def test_policies_are_a_caution() -> None:
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "default"}}
    other = {"kind": "NetworkPolicy", "metadata": {"name": "x", "namespace": "elsewhere"}}
    wide = {"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "all"}}
    found = expected(cluster(service(), READY, policies=(policy, other)), "n1")
    assert found.cautions[0].startswith("NetworkPolicy default/deny may decide otherwise")
    found = expected(cluster(service(), READY, policies=(policy, wide)), "n1")
    assert found.cautions[0].startswith("NetworkPolicy default/deny and 1 more")
    assert expected(cluster(service(), READY, policies=(other,)), "n1").cautions == ()


def test_endpoints_are_counted_by_address() -> None:
    ends = [READY, endpoint("n2"), LEAVING | {"addresses": ["10.244.1.9"]},
            NOT_READY | {"addresses": ["10.244.1.8"]}]  # fmt: skip
    found = rows(cluster(service(), *ends))
    assert found["n1"].endpoints == Endpoints(1, 2, 1, 1, 1)
    assert found["n2"].endpoints == Endpoints(1, 2, 0, 1, 0)
    assert found["n3"].endpoints == Endpoints(0, 2, 0, 1, 0)


def test_only_endpoints_of_the_ports_own_name_count() -> None:
    web = service(ports=[{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}])
    plan = judge(REQUEST, cluster(web, READY))
    found = {(r.target.port, r.node): r.expected for r in plan.rows}
    assert found[80, "n1"].answers == "yes"
    assert found[9090, "n1"].answers == "no"
    # kube-proxy counts a Service's endpoints for its health check, whatever their port.
    assert found[9090, "n1"].health_status == 200


def test_dual_stack_endpoints_count_in_one_version() -> None:
    web = service(ingress=[{"ip": VIP}, {"ip": "2001:db8::7"}])
    six = {
        "kind": "EndpointSlice",
        "metadata": {"name": "six", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": "web-lb"}},
        "endpoints": [endpoint("n1", "fd00::5")],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }  # fmt: skip
    bundle = cluster(web, READY, nodes=tuple(node(name, dual=True) for name in ADDRESSES))
    plan = judge(REQUEST, bundle_of([*bundle.records, api("endpointslices", six)]))
    found = {(str(r.target.address), r.node): r.expected for r in plan.rows}
    assert found["2001:db8::7", "n1"].answers == "yes"
    assert found["2001:db8::7", "n1"].health_count == 1
    assert found["2001:db8::7", "n2"].answers == "no"
    assert [r.target.version for r in plan.rows].count(6) == 3


def test_the_proof_is_what_the_api_said() -> None:
    found = expected(cluster(service(), READY), "n1")
    assert found.evidence[0].record == 1
    assert f'"healthCheckNodePort": {CHECK}' in found.evidence[0].excerpt[0]
    assert found.evidence[1].record == 2
    assert '"nodeName": "n1"' in found.evidence[1].excerpt[0]
    assert '"ready": true' in found.evidence[1].excerpt[0]
    assert expected(cluster(service(), READY), "n2").evidence[1].excerpt == ()
