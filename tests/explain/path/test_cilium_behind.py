"""Cilium's maps that are behind Kubernetes' Services and EndpointSlices: recorded clusters with one
of the two changed, and healthy ones of the same kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, finding
from tests.explain.path.variants import edit, json_edit

RECORDED = "../features/services/agent.zip"
BY_NODE_POD = "../features/services/pod.zip"
LB, LIST = "cilium-dbg bpf lb list", "cilium-dbg service list -o json"
SLICES, SERVICES, PODS = "get endpointslices -A", "get services -A", "get pods -A"
WEB = "10.44.0.5:8080"
"""The one endpoint of web and web-np."""


def endpoints(service: str, **conditions: bool) -> Change:
    """The conditions of a Service's endpoints."""

    def change(value: Any) -> None:
        for item in value["items"]:
            if item["metadata"]["labels"].get("kubernetes.io/service-name") == service:
                for end in item["endpoints"]:
                    end["conditions"].update(conditions)

    return json_edit("api", SLICES, change)


def services(change: Callable[[dict[str, Any]], None], *names: str) -> Change:
    """Services of these names, changed."""

    def each(value: Any) -> None:
        for item in value["items"]:
            if item["metadata"]["name"] in names:
                change(item)

    return json_edit("api", SERVICES, each)


def deleted(name: str) -> Change:
    """The API server has a Service no more."""

    def change(value: Any) -> None:
        value["items"] = [i for i in value["items"] if i["metadata"]["name"] != name]

    return json_edit("api", SERVICES, change)


def without_port(node: str, port: int) -> list[Change]:
    """A node's map, and its agent's list, without a port."""

    def rows(text: str) -> str:
        return "".join(line for line in text.splitlines(True) if f":{port}/" not in line)

    def listed(text: str) -> str:
        return json.dumps(
            [s for s in json.loads(text) if s["spec"]["frontend-address"].get("port") != port]
        )

    return [edit(node, LB, rows), edit(node, LIST, listed)]


def bad(path: Path) -> list[str]:
    return [f.title for f in path.findings if f.severity != "info"]


NOT_READY = {"ready": False, "serving": False}


@pytest.mark.parametrize(
    ("service", "to", "node", "conditions", "severity"),
    [
        ("web", "svc/web", "node2", NOT_READY, "error"),
        ("web-np", "172.31.7.11:30945", "node1", NOT_READY, "error"),
        # The agent's list, which has no frontend of a device, tells it as active.
        ("web", "svc/web", "node2", {"ready": False, "terminating": True}, "warning"),
    ],
    ids=["at the sender", "where it comes in", "terminates"],
)
def test_a_backend_that_is_active_though_the_slice_says_otherwise(
    service: str, to: str, node: str, conditions: dict[str, bool], severity: str
) -> None:
    path = ask(changed(RECORDED, endpoints(service, **conditions)), "client", to)
    found = finding(
        path, f"still sends to a backend that is not ready by its EndpointSlices: {WEB}"
    )
    assert found.severity == severity
    assert f"Cilium on {node} is behind Kubernetes" in found.detail


def test_a_backend_that_terminates_is_none_that_the_map_should_lack() -> None:
    """The map alone does not tell whether a slot is one of those that it chooses from."""
    ends = endpoints("web", ready=False, serving=True, terminating=True)
    path = ask(changed(RECORDED, ends, *[edit("node2", LIST, lambda _: "[]")]), "client", "svc/web")
    assert not bad(path)


def test_a_packet_that_is_lost_at_a_backend_that_is_not_ready_is_the_agents() -> None:
    gone = edit(
        "node1", "cilium-dbg bpf endpoint list",
        lambda text: "".join(row for row in text.splitlines(True) if "10.44.0.5:" not in row),
    )  # fmt: skip
    idle = endpoints("web", ready=False, serving=False)
    path = ask(changed(RECORDED, idle, gone), "client", "svc/web")
    dropped_at(path)
    assert f"sends svc default/web to {WEB}, which is not ready by its EndpointSlices" in path.cause
    assert path.fix is not None
    assert "Cilium's agent on node2 is behind" in path.fix.text


def test_a_backend_that_terminates_for_the_agent_alone() -> None:
    other = edit("node2", LIST, lambda text: text.replace('"active"', '"terminating"'))
    path = ask(changed(RECORDED, other), "client", "svc/aff")
    found = finding(path, "has a backend that is ready by its EndpointSlices as terminating")
    assert found.severity == "warning"


def source_ranges(*cidrs: str) -> Callable[[dict[str, Any]], None]:
    return lambda item: item["spec"].update(loadBalancerSourceRanges=list(cidrs))


@pytest.mark.parametrize("source", ["client", "172.31.7.200"])
def test_source_ranges_that_the_map_lacks(source: str) -> None:
    lets = "lets every source in to LoadBalancer 172.31.7.242:80/TCP"
    name = "web-lb-cluster"
    path = ask(
        changed(RECORDED, services(source_ranges("10.0.0.0/8"), name)), source, "172.31.7.242:80"
    )
    assert finding(path, lets).severity == "warning"
    assert "loadBalancerSourceRanges 10.0.0.0/8" in finding(path, lets).title
    off = edit(
        "api", "get configmaps -n kube-system cilium-config",
        lambda text: text.replace('source-range-check": "true"', 'source-range-check": "false"'),
    )  # fmt: skip
    unchecked = changed(RECORDED, services(source_ranges("10.0.0.0/8"), name), off)
    assert not bad(ask(unchecked, source, "172.31.7.242:80"))


def test_source_ranges_that_the_service_lacks() -> None:
    none = services(lambda item: item["spec"].pop("loadBalancerSourceRanges"), "lbsr-bad")
    path = ask(changed(RECORDED, none), "client", "172.31.7.244:80")
    said = "lets only some sources in to LoadBalancer 172.31.7.244:80/TCP of svc default/lbsr-bad"
    assert finding(path, said).severity == "warning"
    outside = ask(changed(RECORDED, none), "172.31.7.200", "172.31.7.244:80")
    assert outside.verdict == "unknown"
    assert said in outside.cause
    assert outside.fix is not None
    assert "Cilium's agent on node1 is behind" in outside.fix.text


def test_a_frontend_whose_service_is_gone() -> None:
    path = ask(changed(RECORDED, deleted("web")), "client", "10.97.125.117:80")
    found = finding(path, "Cilium's map on node2 still has ClusterIP 10.97.125.117:80/TCP")
    assert found.severity == "warning"  # by the map it arrives
    assert "no Service has that address and port" in found.title
    assert path.verdict == "reachable"
    assert f"but {found.title}" in path.reason
    path = ask(changed(RECORDED, deleted("web-np")), "client", "172.31.7.11:30945")
    assert "still has NodePort 172.31.7.11:30945/TCP" in finding(path, "no Service").title


@pytest.mark.parametrize("capture", [RECORDED, BY_NODE_POD])
@pytest.mark.parametrize(
    "to",
    [
        "svc/web", "172.31.7.241:31702", "172.31.7.11:9090", "172.31.7.250:80", "10.97.0.1:443",
        "172.31.7.244:80", "172.31.7.239:90/udp", "svc/aff", "172.31.7.12:30526",
    ],
)  # fmt: skip
def test_what_is_of_a_service_of_now_is_no_finding(capture: str, to: str) -> None:
    """A health check's frontend, a hostPort, an external IP among them."""
    path = ask(
        changed(capture), "client", to.partition("/udp")[0], "udp" if "/udp" in to else "tcp"
    )
    assert not [title for title in bad(path) if "map on" in title or "EndpointSlices" in title]


@pytest.mark.parametrize(
    ("port", "what"),
    [
        (30945, "NodePort 172.31.7.11:30945/TCP of svc default/web-np"),
        (9090, "of hostPort 9090/TCP of pod default/hp"),
    ],
)
def test_a_port_of_the_node_that_the_map_lacks(port: int, what: str) -> None:
    path = ask(changed(RECORDED, *without_port("node1", port)), "client", f"172.31.7.11:{port}")
    assert path.verdict == "unknown"
    assert "Cilium's load-balancing map on node1 has no frontend" in path.cause
    assert f"{what}: its agent is behind Kubernetes" in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node1 is behind")


def annotated(name: str, **value: str) -> Change:
    notes = {f"service.cilium.io/{key.replace('_', '-')}": text for key, text in value.items()}
    return services(lambda item: item["metadata"].update(annotations=notes), name)


@pytest.mark.parametrize(
    ("notes", "to", "said"),
    [
        ({"type": "LoadBalancer"}, "172.31.7.11:30127",
         "has no frontend of type NodePort: its annotation service.cilium.io/type lets Cilium "
         "make those of type LoadBalancer alone"),
        ({"type": "ClusterIP"}, "172.31.7.242:80",
         "has no frontend of type LoadBalancer: its annotation service.cilium.io/type"),
        ({"node": "edge"}, "172.31.7.242:80",
         "is for nodes with the label service.cilium.io/node=edge alone (by its annotation of that "
         "name), and node1 is none"),
        ({"node": "edge", "node_selector": "edge in (a, b)"}, "172.31.7.242:80",
         "its Service chooses nodes by the annotation service.cilium.io/node-selector (edge in "),
    ],
)  # fmt: skip
def test_a_frontend_that_an_annotation_keeps_from_the_node(
    notes: dict[str, str], to: str, said: str
) -> None:
    port = int(to.rpartition(":")[2])
    lacks = [edit("node1", LB, lambda text: "".join(
        row for row in text.splitlines(True) if f"{to}/" not in row and f":{port}/" not in row
    ))]  # fmt: skip
    _, request = arguments.question(
        "172.31.7.200", to, "", "", ipv4=False, ipv6=False, via_word="node1"
    )
    bundle = changed(RECORDED, annotated("web-lb-cluster", **notes), *lacks)
    path = explain(request("default"), bundle)
    assert path.verdict == "unknown", path.reason
    assert said in path.cause
    assert "behind" not in path.cause
    without = explain(request("default"), changed(RECORDED, *lacks))
    assert "its agent is behind Kubernetes" in without.cause


def test_a_node_port_at_other_addresses_of_the_node() -> None:
    here = edit("node1", LB, lambda text: "".join(
        row for row in text.splitlines(True) if "172.31.7.11:30945/" not in row
    ))  # fmt: skip
    path = ask(changed(RECORDED, here), "client", "172.31.7.11:30945")
    has = "Cilium's load-balancing map on node1 has node port 30945/TCP, and not at 172.31.7.11"
    assert f"{has};" in path.cause
    chosen = edit(
        "api", "get configmaps -n kube-system cilium-config",
        lambda text: text.replace('"nodeport-addresses": ""', '"nodeport-addresses": "10.0.0.0/8"'),
    )  # fmt: skip
    path = ask(changed(RECORDED, here, chosen), "client", "172.31.7.11:30945")
    assert f"{has} (nodeport-addresses: 10.0.0.0/8);" in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith("Ask for an address at which Cilium serves node ports")


def test_a_backend_in_maintenance_is_not_the_agents_lateness() -> None:
    paused = edit("node2", LIST, lambda text: text.replace('"active"', '"maintenance"'))
    path = ask(changed(RECORDED, paused), "client", "svc/web")
    dropped_at(path)
    assert f"{WEB} maintenance on node2: that takes no new connections" in path.cause
    assert "behind" not in path.cause
    assert path.fix is not None
    assert path.fix.command.endswith("cilium-dbg service list")


def test_an_address_that_serves_no_node_ports_is_nobodys_fault() -> None:
    path = ask(changed(RECORDED), "client", "10.44.1.184:30945")
    assert "behind" not in path.cause


def with_spec(name: str, **spec: object) -> Change:
    return services(lambda item: item["spec"].update(spec), name)


@pytest.mark.parametrize(
    ("source", "to", "change", "said"),
    [
        ("172.31.7.200", "172.31.7.242:80",
         with_spec("web-lb-cluster", externalTrafficPolicy="Local"),
         "with externalTrafficPolicy Cluster, and the Service has Local"),
        ("client", "172.31.7.241:80", with_spec("web-lb-local", externalTrafficPolicy="Cluster"),
         "with externalTrafficPolicy Local, and the Service has Cluster"),
        ("client", "svc/web", with_spec("web", internalTrafficPolicy="Local"),
         "with internalTrafficPolicy Cluster, and the Service has Local"),
    ],
)  # fmt: skip
def test_a_traffic_policy_that_the_map_has_otherwise(
    source: str, to: str, change: Change, said: str
) -> None:
    assert finding(ask(changed(RECORDED, change), source, to), said).severity == "warning"


def test_an_address_that_two_services_have() -> None:
    """The map has that of svc ext, whose name is the later one."""
    path = ask(
        changed(RECORDED, with_spec("aff", externalIPs=["172.31.7.250"])),
        "client",
        "172.31.7.250:80",
    )
    assert finding(path, "svc default/aff has 172.31.7.250:80 as well as svc default/ext")
    assert not [title for title in bad(path) if "EndpointSlice" in title]


def test_a_map_that_is_empty_balances_nothing() -> None:
    emptied = edit("node2", LB, lambda text: text.splitlines(True)[0])
    path = ask(changed(RECORDED, emptied), "client", "svc/web")
    assert path.verdict == "unknown"
    assert "Cilium's load-balancing map on node2 has no frontend ClusterIP" in path.cause


def test_a_host_port_whose_pod_is_gone() -> None:
    def gone(value: Any) -> None:
        value["items"] = [i for i in value["items"] if i["metadata"]["name"] != "hp"]

    path = ask(
        changed(RECORDED, json_edit("api", "get pods -A", gone)), "client", "172.31.7.11:9090"
    )
    assert finding(path, "still has HostPort 172.31.7.11:9090/TCP").severity == "warning"


# --- answers that are older than what the slices say --------------------------------------------

KPR_OFF = "../features/kpr-off-iptables/agent.zip"
"""client's flow to svc/web was answered 49 s before the tables were read."""
ANSWERED = "10.44.1.9"
"""The pod that answered."""


def emptied(value: Any) -> None:
    for item in value["items"]:
        if item["metadata"]["labels"].get("kubernetes.io/service-name") == "web":
            item["endpoints"] = []


def without_pod(value: Any) -> None:
    value["items"] = [i for i in value["items"] if i["status"].get("podIP") != ANSWERED]


EMPTY = json_edit("api", SLICES, emptied)


@pytest.mark.parametrize("sender", ["client", "hostnet"])
def test_an_answer_before_the_slices_were_emptied_proves_nothing_of_a_new_connection(
    sender: str,
) -> None:
    """The load-balancer still sends to the pod: the tables let it through, and the verdict's line
    has what speaks against them."""
    path = ask(changed(KPR_OFF, EMPTY), sender, "svc/web:80")
    assert path.verdict == "reachable"
    assert f"{ANSWERED}:8080, which no EndpointSlice names" in path.reason
    assert any("no EndpointSlice names" in each.text for each in path.contradictions)


@pytest.mark.parametrize("sender", ["client", "hostnet"])
def test_an_answer_of_a_pod_that_is_gone_proves_nothing(sender: str) -> None:
    path = ask(changed(KPR_OFF, EMPTY, json_edit("api", PODS, without_pod)), sender, "svc/web:80")
    assert path.verdict == "unknown"
    assert "no EndpointSlice names" in path.reason


def test_an_answer_stands_where_the_slices_name_who_gave_it() -> None:
    path = ask(changed(KPR_OFF), "client", "svc/web:80")
    assert path.verdict == "delivered"
    assert not path.contradictions
