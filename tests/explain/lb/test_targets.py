"""What can be probed: addresses and ports of Services, nodes by selector, refusals in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.errors import EbpfnetError, NotFound, UsageError
from kubectl_ebpfnet.explain.lb import targets as probe_targets
from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import CLIENT, InMemory, Record
from kubectl_ebpfnet.model.probe import TargetKind
from tests.explain.lb.lb_bundle import NODE_PORT, REQUEST, VIP, cluster, endpoint, node, service

NO_ADDRESS = {"type": "ClusterIP", "ingress": []}
PORTS = [
    {"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT},
    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
    {"name": "sip", "port": 5060, "protocol": "SCTP"},
]


@pytest.mark.parametrize(
    ("spec", "node_ports", "said", "hint"),
    [
        (NO_ADDRESS, False, "is a ClusterIP Service: it has no address outside", "`path`"),
        ({**NO_ADDRESS, "clusterIP": "None", "clusterIPs": ["None"]}, False, "is headless", "path"),
        ({"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": [],
          "ingress": []}, False, "is an ExternalName: a DNS alias of example.com", "probe example"),
        ({"type": "NodePort", "ingress": []}, False, "is a NodePort Service", "--node-port"),
        ({"ingress": []}, False, "has no load-balancer address yet", "--node-port"),
        ({"ingress": [], "ports": [{"port": 80}]}, True, "no load-balancer address yet", "events"),
    ],
)  # fmt: skip
def test_what_cannot_be_probed(spec, node_ports, said, hint) -> None:
    request = replace(REQUEST, node_ports=node_ports)
    with pytest.raises(EbpfnetError, match=r"^svc/web-lb ") as caught:
        judge(request, cluster(service(**spec), endpoint("n1")))
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_no_such_service() -> None:
    with pytest.raises(NotFound, match='service "other" not found in namespace default'):
        judge(replace(REQUEST, service="other"), cluster(service()))


def targets(spec, **request) -> list[str]:
    """Titles of the targets."""
    plan = judge(replace(REQUEST, **request), cluster(service(**spec)))
    return [target.title for target in plan.targets]


def test_every_address_with_every_port() -> None:
    spec = {"ports": PORTS, "externalIPs": ["198.51.100.9", VIP]}
    assert targets(spec) == [
        f"{VIP}:80/TCP", f"{VIP}:53/UDP", "198.51.100.9:80/TCP", "198.51.100.9:53/UDP",
    ]  # fmt: skip
    assert targets(spec, port="dns") == [f"{VIP}:53/UDP", "198.51.100.9:53/UDP"]
    assert targets(spec, port="80") == targets(spec, protocol=6) != targets(spec)


def test_node_ports_of_each_ip_version() -> None:
    spec = {"ports": PORTS, "type": "NodePort", "ingress": []}
    assert targets(spec, node_ports=True) == [
        f"node port {NODE_PORT}/TCP", "node port 30053/UDP",
    ]  # fmt: skip
    dual = {**spec, "clusterIPs": ["10.96.0.7", "fd00::7"]}
    assert len(targets(dual, node_ports=True)) == 2, "no node has an IPv6 address"
    six = node("n1")
    six["status"]["addresses"].append({"type": "InternalIP", "address": "2001:db8::11"})
    plan = judge(
        replace(REQUEST, node_ports=True, port="http"),
        cluster(service(**dual), nodes=(six, node("n2"))),
    )
    assert [t.title for t in plan.targets] == [
        f"node port {NODE_PORT}/TCP", f"node port {NODE_PORT}/TCP over IPv6",
    ]  # fmt: skip


def test_a_load_balancer_by_name() -> None:
    spec = {"ingress": [{"hostname": "lb.example.com"}]}
    plan = judge(REQUEST, cluster(service(**spec)))
    assert plan.targets == ()
    assert plan.verdict == "unknown"
    assert plan.missing == (
        "lb.example.com, the load-balancer's name, was not resolved to an address",
    )
    said = InMemory(f"{VIP}\nfe80::1%eth0\n²\n{VIP}\n".encode())
    look_up = Record(0, CLIENT, ("resolve", "lb.example.com"), 0, said)
    found = judge(REQUEST, cluster(service(**spec), more=(look_up,)))
    (target,) = found.targets
    assert (target.hostname, target.title) == ("lb.example.com", f"{VIP}:80/TCP")
    assert target.kind is TargetKind.INGRESS
    assert found.missing == ()


def test_ports_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="has no port 81") as caught:
        targets({"ports": PORTS}, port="81")
    assert caught.value.hint == "it has http (80/TCP), dns (53/UDP), sip (5060/SCTP)"
    with pytest.raises(UsageError, match="SCTP ports cannot be probed"):
        targets({"ports": PORTS}, port="sip")
    plan = judge(REQUEST, cluster(service(ports=PORTS)))
    assert plan.missing == ("port 5060/SCTP: netkat does not speak SCTP",)


LABELS = {"zone": "a", "role": "edge", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [("", True), ("zone=a", True), ("zone==a", True), ("zone = a , role = edge", True),
     ("zone=b", False), ("zone!=b", True), ("zone!=a", False), ("other!=x", True),
     ("zone", True), ("other", False), ("!other", True), ("!zone", False), ("empty=", True),
     ("zone in (a, b)", True), ("zone in (b)", False), ("zone notin (b)", True),
     ("other notin (x)", True), ("zone notin (a,b)", False), ("zone in (a),!other", True),
     ("example.com/x-y_z", False)],
)  # fmt: skip
def test_selectors(selector: str, fits: bool) -> None:
    assert probe_targets.selects(selector, LABELS.items()) is fits


@pytest.mark.parametrize("selector", ["=a", "zone in a", "a b", "(", "zone in (a", "a,,b", "!"])
def test_what_is_no_selector(selector: str) -> None:
    with pytest.raises(UsageError, match="is no label selector"):
        probe_targets.selects(selector, ())


def test_nodes_by_selector() -> None:
    nodes = (node("n3", labels={"zone": "b"}), node("n1", labels={"zone": "b"}), node("n2"))
    world = ClusterView(cluster(service(), nodes=nodes))
    assert [n.name for n in probe_targets.nodes(world, "zone=b")] == ["n1", "n3"]
    with pytest.raises(UsageError, match="no node fits"):
        probe_targets.nodes(world, "zone=c")
