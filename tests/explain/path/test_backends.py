"""Backends and frontends of every state, place and version: what a packet for a Service meets."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.path import backends
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import TCP
from tests.explain.path.changed import (
    NATIVE,
    SCENARIOS,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    fail,
    finding,
    say,
    without,
)
from tests.explain.path.variants import edit, json_edit

SERVICES, LB, STATUS = (
    "cilium-dbg service list -o json", "cilium-dbg bpf lb list", "cilium-dbg status -o json",
)  # fmt: skip
CT, SLICES = "cilium-dbg bpf ct list global -d", "get endpointslices"
HUNG = 'Get "http://localhost/v1": context deadline exceeded'
POD, GONE = "10.244.0.135", "10.244.0.252"


def report(name: str, *changes: Change) -> Bundle:
    """A report's cluster, changed."""
    return changed(f"reports/{name}", *changes)


def untracked(text: str) -> str:
    """Conntrack without the flows of the pod web."""
    return "".join(
        line for line in text.splitlines(True) if "RevNAT=2" not in line and POD not in line
    )


def without_pod(text: str) -> str:
    """A table without the rows of the pod web."""
    return "".join(line for line in text.splitlines(True) if POD not in line)


def more_backends(*addresses: str) -> list[Change]:
    """Service web of node2 with backends beside the pod web: in the map, the agent's list and the
    EndpointSlice."""

    def in_map(text: str) -> str:
        lines = text.splitlines(True)
        slot = next(line for line in lines if POD in line and line.startswith("10.96.51.4:80"))
        more = [
            slot.replace(POD, address).replace("(1)", f"({number})")
            for number, address in enumerate(addresses, 2)
        ]
        return text + "".join(more)

    return [edit("node2", LB, in_map), edit("node2", CT, untracked)]


def in_slices(*addresses: str) -> Change:
    """The EndpointSlice of web names more endpoints."""

    def add(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            if item["metadata"]["labels"].get("kubernetes.io/service-name") == "web":
                first = item["endpoints"][0]
                item["endpoints"] += [{**first, "addresses": [a]} for a in addresses]

    return json_edit("api", SLICES, add)


def hung(*commands: str) -> list[Change]:
    """The agent's API does not answer."""
    return [fail("node2", command, HUNG) for command in commands]


def test_one_backend_of_two_is_gone_and_the_choice_decides() -> None:
    path = ask(changed(VXLAN, *more_backends(GONE)), "client", "svc/web:80")
    found = finding(path, "1 of 2 backends of ClusterIP 10.96.51.4:80/TCP of svc default/web lose")
    assert found.severity == "error"
    assert f"{GONE}:8080: no endpoint has {GONE} on node1" in found.detail
    assert path.verdict == "unknown"
    assert "any may be chosen" in path.reason


def test_a_backend_that_is_followed_is_one_that_is_there() -> None:
    """The map's first slot leads nowhere; the walk follows the pod of the EndpointSlice."""
    swapped = edit(
        "node2", LB, lambda text: text.replace(POD, "x").replace(GONE, POD).replace("x", GONE)
    )
    path = ask(changed(VXLAN, *more_backends(GONE), swapped), "client", "svc/web:80")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert f"→ {POD}:8080" in hop.summary


def test_backends_that_all_arrive_decide_nothing() -> None:
    """Pods of both nodes: the followed one stands for both."""
    path = ask(changed(VXLAN, *more_backends("10.244.0.135")), "client", "svc/web:80")
    assert path.verdict in ("reachable", "delivered")
    assert not [f for f in path.findings if "lose the packet" in f.title]


def test_a_stale_backend_where_the_agent_hangs() -> None:
    """`bpf` commands open the maps themselves; the API's commands hang (fault v09)."""
    stale = edit("node2", LB, lambda text: text.replace(POD, GONE))
    bundle = changed(
        VXLAN, stale, edit("node2", CT, untracked),
        *hung(SERVICES, STATUS, "cilium-dbg endpoint list -o json"),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web:80")
    assert f"no endpoint has {GONE} on node1" in dropped_at(path).summary
    assert finding(path, "still has a backend that no EndpointSlice names").severity == "error"


def test_neither_the_map_nor_the_list_was_read() -> None:
    bundle = changed(
        VXLAN, fail("node2", LB, "permission denied"), *hung(SERVICES), edit("node2", CT, untracked)
    )
    path = ask(bundle, "client", "svc/web:80")
    assert path.verdict == "unknown"
    assert "neither Cilium's load-balancing map nor its agent's list" in path.reason
    assert "permission denied" in path.reason


def test_terminating_backends_serve_while_none_is_active() -> None:
    ending = edit("node2", SERVICES, lambda text: text.replace('"active"', '"terminating"'))
    path = ask(changed(VXLAN, ending, edit("node2", CT, untracked)), "client", "svc/web:80")
    assert path.verdict == "reachable"
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert "those that terminate serve" in hop.summary
    assert not [f for f in path.findings if f.severity == "error"]


def test_a_state_that_is_not_known_is_no_yes() -> None:
    odd = edit("node2", SERVICES, lambda text: text.replace('"active"', '"warming-up"'))
    path = ask(changed(VXLAN, odd, edit("node2", CT, untracked)), "client", "svc/web:80")
    assert path.verdict == "unknown"
    assert "“warming-up”" in path.reason


def test_a_slot_without_a_backend_is_said() -> None:
    slot = f"{POD}:8080/TCP (2) (1)"
    lost = edit("node2", LB, lambda text: text.replace(slot, "backend 9 not found"))
    path = ask(changed(VXLAN, lost, edit("node2", CT, untracked)), "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert "name a backend that Cilium's map lacks" in path.cause


def shared(value: object) -> None:
    """clustermesh: Services are global."""
    assert isinstance(value, dict)
    for item in value["items"]:
        item["metadata"].setdefault("annotations", {})["service.cilium.io/global"] = "true"


def test_another_cluster_gives_backends_that_no_slice_names() -> None:
    bundle = changed(VXLAN, *more_backends("10.99.0.7"), json_edit("api", "get services", shared))
    path = ask(bundle, "client", "svc/web:80")
    assert not [f for f in path.findings if f.severity == "error"], path.findings


def global_with(affinity: str) -> Change:
    """clustermesh: Services are global, and prefer the endpoints of some clusters."""

    def annotate(value: object) -> None:
        shared(value)
        assert isinstance(value, dict)
        for item in value["items"]:
            item["metadata"]["annotations"]["service.cilium.io/affinity"] = affinity

    return json_edit("api", "get services", annotate)


def listed_with(address: str, *preferred: str) -> Change:
    """The agent's list has one more backend, and prefers these."""

    def add(value: object) -> None:
        assert isinstance(value, list)
        for item in value:
            for of in (item["spec"], item["status"]["realized"]):
                ends = of.get("backend-addresses") or []
                ends += [{**end, "ip": address} for end in ends if end["ip"] == POD]
                for end in ends:
                    end["preferred"] = end["ip"] in preferred

    return json_edit("node2", SERVICES, add)


@pytest.mark.parametrize(("affinity", "taken"), [("remote", "10.99.0.7"), ("local", POD)])
@pytest.mark.parametrize("listed", [True, False])
def test_the_affinity_of_a_clustermesh_chooses_the_cluster(
    affinity: str, taken: str, listed: bool
) -> None:
    """Up to Cilium 1.17 the map has the others in slots behind its count, which it does not print;
    where the agent hangs, the Service tells."""
    said = [listed_with("10.99.0.7", taken)] if listed else hung(SERVICES)
    bundle = changed(VXLAN, *more_backends("10.99.0.7"), global_with(affinity), *said)
    path = ask(bundle, "client", "svc/web:80")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert f"→ {taken}:8080" in hop.summary
    assert "not used" in hop.summary
    assert "one of 2" not in hop.summary
    assert not [f for f in path.findings if f.severity == "error"], path.findings


def test_an_agent_that_prefers_every_backend_prefers_none() -> None:
    """As agents since 1.18 say; the map has one more than the list."""
    bundle = changed(VXLAN, *more_backends(GONE), listed_with("10.99.0.9", POD, "10.99.0.9"))
    path = ask(bundle, "client", "svc/web:80")
    assert finding(path, f"lose the packet: {GONE}:8080")


@pytest.mark.parametrize(
    ("affinity", "cause"),
    [
        ("local", "and no other cluster of the clustermesh gives node2 an endpoint"),
        ("none", "its annotation service.cilium.io/affinity is “none”"),
    ],
)
def test_a_global_service_without_an_endpoint_in_any_cluster(affinity: str, cause: str) -> None:
    def empty(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            item["endpoints"] = []

    bundle = changed(
        VXLAN, global_with(affinity), json_edit("api", SLICES, empty),
        edit("node2", LB, without_pod), edit("node2", CT, untracked),
        edit("node2", SERVICES, lambda text: text.replace(POD, "10.244.9.9")),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert cause in path.cause


def test_a_backend_whose_answer_is_lost_is_one_that_loses_the_packet() -> None:
    mute = say("web", "ip route", "10.244.0.173 dev eth0 scope link\n")
    far = json_edit("api", "get services", shared)
    path = ask(changed(VXLAN, *more_backends("10.99.0.7"), far, mute), "client", "svc/web:80")
    assert path.verdict == "unknown"
    found = finding(path, "1 of 2 backends of ClusterIP 10.96.51.4:80/TCP of svc default/web lose")
    assert "10.244.0.135:8080: the answer is lost: no route to 10.244.1.160" in found.detail


def test_an_agent_behind_its_slices_with_some_backends() -> None:
    path = ask(
        changed(VXLAN, in_slices("10.244.0.9"), edit("node2", CT, untracked)), "client", "svc/web"
    )
    found = finding(path, "lacks a ready endpoint of its EndpointSlices: 10.244.0.9:8080")
    assert found.severity == "warning"
    assert path.verdict == "reachable"


@pytest.mark.parametrize("on", ["node1", "node2"])
def test_endpoints_of_other_nodes_may_be_left_out_by_choice(on: str) -> None:
    """trafficDistribution PreferSameNode: Cilium since 1.20 takes those of its own node alone."""

    def prefer(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            item["spec"]["trafficDistribution"] = "PreferSameNode"

    def there(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            for end in item["endpoints"]:
                if end["addresses"] == ["10.244.0.9"]:
                    end |= {"nodeName": on, "zone": "za"}

    bundle = changed(
        VXLAN, in_slices("10.244.0.9"), json_edit("api", SLICES, there),
        json_edit("api", "get services", prefer), edit("node2", CT, untracked),
    )  # fmt: skip
    said = [f for f in ask(bundle, "client", "svc/web").findings if "lacks a ready" in f.title]
    assert bool(said) is (on == "node2")


@pytest.mark.parametrize(
    ("policy", "cause"),
    [
        ("Local", "internalTrafficPolicy is Local, and no ready endpoint is on node2"),
        ("Cluster", "Cilium on node2 is behind its EndpointSlices"),
    ],
)
def test_why_no_backend(policy: str, cause: str) -> None:
    def spec(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            item["spec"]["internalTrafficPolicy"] = policy

    gone = edit("node2", LB, without_pod)
    bundle = changed(
        VXLAN, gone, *([json_edit("api", "get services", spec)] if policy == "Local" else []),
        edit("node2", SERVICES, lambda text: text.replace(POD, "10.244.9.9")),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert cause in path.cause
    assert path.fix is not None
    if policy == "Local":
        assert path.fix.text == "Run a backend on node2, or set internalTrafficPolicy: Cluster."
        assert path.fix.command.startswith("kubectl patch service -n default web -p ")
        assert json.loads(shlex.split(path.fix.command)[-1]) == {
            "spec": {"internalTrafficPolicy": "Cluster"}
        }
    else:
        assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")


def test_a_map_that_keeps_to_its_node_against_the_service_is_behind() -> None:
    def spec(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            if item["metadata"]["name"] in ("itp-local", "web-lb-local"):
                item["spec"].pop("internalTrafficPolicy", None)
                item["spec"]["externalTrafficPolicy"] = "Cluster"

    bundle = changed("../features/services/agent.zip", json_edit("api", "get services -A", spec))
    for source, to, setting in (
        ("client", "svc/itp-local", "internalTrafficPolicy"),
        ("client1", "172.31.7.12:30526", "externalTrafficPolicy"),
    ):
        path = ask(bundle, source, to)
        assert f"Cilium on node2 is behind its Service: that has {setting} Cluster" in path.cause
        assert path.fix is not None
        assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")


def test_a_local_policy_without_slices_does_not_say_that_no_pod_is_ready() -> None:
    def spec(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            item["spec"]["internalTrafficPolicy"] = "Local"

    bundle = changed(
        VXLAN, edit("node2", LB, without_pod), json_edit("api", "get services", spec),
        say("node2", SERVICES, "[]"), without("", SLICES),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert "internalTrafficPolicy is Local" in path.cause
    assert "its EndpointSlices are not recorded" in path.cause
    assert "no pod matches" not in path.cause


def test_an_endpoint_that_is_not_ready_is_named() -> None:
    def unready(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            for end in item["endpoints"]:
                end["conditions"] = {"ready": False, "serving": False}

    gone = edit("node2", LB, without_pod)
    bundle = changed(VXLAN, gone, say("node2", SERVICES, "[]"), json_edit("api", SLICES, unready))
    path = ask(bundle, "client", "svc/web:80")
    assert "none of its 1 endpoints is ready: 10.244.0.135:8080 (pod web)" in path.cause
    assert path.drop is not None
    assert path.drop.object == "Pod default/web"


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (Lookup.HOST_SOCKET, True),
        (Lookup.POD_SOCKET, True),
        (Lookup.POD, False),
        (Lookup.DEVICE, False),
    ],
)
def test_wildcards_are_for_sockets(place: Lookup, found: bool) -> None:
    """0.0.0.0:30080 of node-a, asked for at node-b's address."""
    cluster = ClusterView(open_bundle(SCENARIOS / "reports/wildcard-nodeport-outside-a-socket"))
    service = find(cluster, "node-a", ip_address("192.0.2.12"), 30080, TCP, place)
    assert service is not None
    assert service.in_cilium is found


def test_a_wildcard_of_a_host_port_is_for_its_own_node() -> None:
    cluster = ClusterView(open_bundle(SCENARIOS / "reports/hostport-on-the-receiving-node"))
    for node, there in (("node-b", True), ("node-a", False)):
        service = find(cluster, node, ip_address("192.0.2.12"), 8126, TCP, Lookup.HOST_SOCKET)
        assert (service is not None and bool(service.in_cilium)) is there


def _map_unread(bundle: Bundle, node: str) -> Bundle:
    records = tuple(
        replace(r, exit_code=1, stderr=b"denied") if r.command == LB and r.place.node == node else r
        for r in bundle.records
    )
    return replace(bundle, records=records)


def host_port(value: object) -> None:
    """The pods have a hostPort."""
    assert isinstance(value, dict)
    for item in value["items"]:
        ports = [{"containerPort": 8126, "hostPort": 8126, "protocol": "TCP"}]
        item["spec"]["containers"][0]["ports"] = ports


def test_a_node_whose_map_was_not_read_may_balance() -> None:
    bundle = report("hostport-on-the-receiving-node", json_edit("api", "get pods", host_port))
    path = ask(_map_unread(bundle, "node-b"), "client", "192.0.2.12:8126")
    assert path.verdict == "unknown"
    assert "the load-balancer of node-b has 192.0.2.12:8126" in path.reason
    # Kubernetes' objects rule other ports out: no Service and no pod has them.
    other = ask(_map_unread(bundle, "node-b"), "client", "192.0.2.12:10250")
    assert other.verdict == "reachable"


def test_dsr_keeps_the_source_and_snat_does_not() -> None:
    """A NodePort whose backend is on another node than the one that was asked."""
    name = "wildcard-nodeport-outside-a-socket"
    snat = ask(report(name), "client", "192.0.2.12:30080")
    dsr = ask(
        report(name, edit("node-b", STATUS, lambda text: text.replace('"SNAT"', '"DSR"'))),
        "client", "192.0.2.12:30080",
    )  # fmt: skip
    said = [
        next(hop.summary for hop in path.hops if hop.kind == "nat" and hop.node == "node-b")
        for path in (snat, dsr)
    ]
    assert "the source becomes 192.0.2.12" in said[0]
    assert "DSR: the source stays" in said[1]


@pytest.mark.parametrize(
    ("slots", "verdict", "text"),
    [
        (True, "dropped", "dropped in silence"),
        (False, "unknown", "it passes untranslated"),
    ],
)
def test_what_becomes_of_it_depends_on_the_datapaths_age(
    slots: bool, verdict: str, text: str
) -> None:
    """Rows without slots are of Cilium up to 1.11, which lets the packet pass."""
    frontend, backend = (" (0)", " (1)") if slots else ("", "")
    rows = (
        "SERVICE ADDRESS   BACKEND ADDRESS\n"
        f"10.96.71.229:80   0.0.0.0:0 (2){frontend} [ClusterIP]\n"
        f"10.96.0.1:443     172.30.0.1:6443 (1){backend}\n"
    )
    bundle = changed(
        NATIVE, say("node2", LB, rows), say("node2", SERVICES, "[]"),
        edit("node2", CT, lambda text: ""),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web")
    assert path.verdict == verdict, path.reason
    assert any(text in hop.summary for hop in path.hops if hop.kind == "load-balancing")


@pytest.mark.variants
@pytest.mark.parametrize(
    "command", [LB, SERVICES, "cilium-dbg bpf egress list", "cilium-dbg bpf nat list"]
)
@pytest.mark.parametrize("damage", ["cut", "odd state", "no field", "garbled"])
@pytest.mark.parametrize("destination", ["svc/web:80", "1.1.1.1:80", "172.30.0.12:32479"])
def test_an_undecidable_row_moves_the_verdict_to_unknown_alone(
    command: str, damage: str, destination: str
) -> None:
    """The property of design.md over load-balancing, NAT and egress rows."""
    before = ask(open_bundle(SCENARIOS / VXLAN), "client", destination).verdict
    for bundle in _damaged(command, damage):
        after = ask(bundle, "client", destination)
        allowed = {before, "unknown"}
        assert after.verdict in allowed, (before, after.verdict, after.reason)


def _damaged(command: str, damage: str) -> list[Bundle]:
    """The recorded cluster with one row after the other made undecidable."""
    record = next(
        r for r in open_bundle(SCENARIOS / VXLAN).records
        if r.command == command and r.place.node == "node2"
    )  # fmt: skip
    text = record.stdout.read().decode()
    found = []
    for number, line in enumerate(text.splitlines()[:40]):
        changes = {
            "cut": line[: len(line) // 2],
            "odd state": line.replace('"active"', '"warming-up"').replace("ClusterIP", "Odd"),
            "no field": line.replace('"state": "active"', '"other": 1').replace("/TCP", ""),
            "garbled": "?? " + line,
        }
        if command == SERVICES and damage in ("cut", "garbled") and number:
            continue
        if changes[damage] == line:
            continue
        lines = text.splitlines()
        lines[number] = changes[damage]
        found.append(changed(VXLAN, say("node2", command, "\n".join(lines) + "\n")))
    return found


def test_a_pod_that_the_endpoint_map_lacks() -> None:
    """cilium_lxc decides, whatever the agent's list has (fault v36)."""
    gone = edit("node1", "cilium-dbg bpf endpoint list", without_pod)
    path = ask(changed(VXLAN, gone, edit("node2", CT, untracked)), "client", "svc/web:80")
    assert dropped_at(path).node == "node1"
    assert f"(cilium_lxc) lacks {POD}, which its agent has as endpoint" in path.cause


def test_topology_hints_may_leave_no_backend() -> None:
    """Cilium uses no endpoint of another zone, as kube-proxy would."""

    def hinted(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            for end in item["endpoints"] or ():
                end["hints"] = {"forZones": [{"name": "za"}]}

    def zoned(value: object) -> None:
        assert isinstance(value, dict)
        for item in value["items"]:
            zone = "za" if item["metadata"]["name"] == "node1" else "zb"
            item["metadata"].setdefault("labels", {})["topology.kubernetes.io/zone"] = zone

    bundle = changed(
        VXLAN, edit("node2", LB, without_pod), say("node2", SERVICES, "[]"),
        json_edit("api", SLICES, hinted), json_edit("api", "get nodes", zoned),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert "topology hints for zone za, node2 is in zb" in path.cause


@pytest.mark.parametrize(
    ("mode", "key", "travels"),
    [("Wireguard", "255", "UDP port 51871"), ("IPsec", "3", "ESP (IP protocol 50)")],
)
def test_encryption_between_nodes(mode: str, key: str, travels: str) -> None:
    bundle = report(
        "wireguard-unmentioned",
        edit("node-a", STATUS, lambda text: text.replace("Wireguard", mode) + " "),
        edit("node-a", "cilium-dbg bpf ipcache list", lambda t: t.replace("=255", f"={key}") + " "),
    )
    path = ask(bundle, "client", "pod/web:8080")
    (hop,) = [hop for hop in path.hops if "encrypted by" in hop.summary and hop.kind == "tunnel"]
    assert f"only {travels} travels" in hop.summary
    assert path.verdict == "reachable"


def test_a_wireguard_device_that_is_down() -> None:
    down = edit("node-a", "ip a", lambda text: text.replace("cilium_wg0: <POINTOPOINT,NOARP,UP", "cilium_wg0: <POINTOPOINT,NOARP"))  # noqa: E501 # fmt: skip
    path = ask(report("wireguard-unmentioned", down), "client", "pod/web:8080")
    assert dropped_at(path).summary == "cilium_wg0 is down"


def test_many_backends_are_counted() -> None:
    many = [Backend(ip_address(f"10.0.0.{n}"), 80, TCP, "not ready") for n in range(1, 9)]
    assert backends.with_states(many[:1]) == "10.0.0.1:80 not ready"
    assert backends.with_states(many).endswith("10.0.0.5:80 not ready and 3 more")


OF_NATIVE = "10.244.0.251"


def two_of_which_one_ends(affinity: bool) -> list[Change]:
    """The pod web, to which the recorded flow went, terminates; the other backend leads nowhere."""

    def in_map(text: str) -> str:
        rows = []
        for line in text.splitlines(True):
            if affinity and line.startswith("10.96.71.229:80/TCP (0)"):
                line = line.replace("[ClusterIP, ", "[ClusterIP, sessionAffinity, ")
            rows.append(line)
            if line.startswith("10.96.71.229:80/TCP (1)"):
                rows.append(line.replace(OF_NATIVE, GONE).replace("(1)", "(2)"))
        return "".join(rows)

    def listed(value: object) -> None:
        assert isinstance(value, list)
        for item in value:
            for of in (item["spec"], item["status"]["realized"]):
                ends = of.get("backend-addresses") or []
                ends += [{**end, "ip": GONE} for end in ends if end["ip"] == OF_NATIVE]
                for end in ends:
                    end["state"] = "terminating" if end["ip"] == OF_NATIVE else "active"

    return [edit("node2", LB, in_map), json_edit("node2", SERVICES, listed)]


def test_session_affinity_keeps_a_client_with_a_backend_that_terminates() -> None:
    path = ask(changed(NATIVE, *two_of_which_one_ends(affinity=True)), "client", "svc/web")
    assert path.verdict == "unknown"
    assert f"1 of 2 backends of ClusterIP 10.96.71.229:80/TCP of svc default/web lose the packet " \
        f"({GONE}:8080)" in path.reason  # fmt: skip
    plain = ask(changed(NATIVE, *two_of_which_one_ends(affinity=False)), "client", "svc/web")
    assert f"no endpoint has {GONE}" in dropped_at(plain).summary
