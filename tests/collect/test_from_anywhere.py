"""Live paths that start at a node, or at a client outside: whom they ask, and what they refuse."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind
from kubectl_ebpfnet.model.path import PathRequest
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.test_path import request

CLIENT = ip_address("203.0.113.9")


def from_node(name: str, **more: Any) -> PathRequest:
    return request(
        source=f"node/{name}", source_kind="node", source_name=name, source_namespace="", **more
    )


def from_outside(address: str = str(CLIENT), **more: Any) -> PathRequest:
    return request(
        source=address, source_kind="address", source_name="", source_namespace="",
        source_address=ip_address(address), **more,
    )  # fmt: skip


def to(kind: str, name: str, port: int | None = None) -> dict[str, Any]:
    return {
        "destination": f"{kind}/{name}", "destination_kind": kind, "destination_name": name,
        "destination_namespace": "default", "port": port,
    }  # fmt: skip


def agents(bundle: Bundle) -> set[str]:
    return {place.node for place in bundle.places(PlaceKind.AGENT)}


def test_a_node_sends_and_is_asked_with_the_far_end(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    asked, bundle = looked(session, from_node("node2", **to("service", "web", 80)), timeout=50)
    assert (asked.source_kind, asked.source_name) == ("node", "node2")
    assert agents(bundle) == {"node1", "node2"}
    pods = {pod for _, pod, _ in replay.execs if not pod.startswith("cilium-")}
    assert all(pod.startswith("web") for pod in pods)  # no pod sends; one may receive
    path = explain(asked, bundle)
    assert (path.source.kind, path.source.node, str(path.source.address)) == (
        "node", "node2", "172.30.0.12",
    )  # fmt: skip
    assert path.verdict.let_through
    assert any("a process of node node2 sends it" in hop.summary for hop in path.hops)


def test_a_node_that_is_not_there(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    with pytest.raises(NotFound, match="node9"):
        looked(session, from_node("node9"), timeout=50)
    assert replay.execs == []


def test_each_node_that_a_client_may_enter_by_is_asked(cluster: Opened) -> None:
    session, _ = cluster("vxlan-kpr")
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    path = explain(asked, bundle)
    assert path.outside is not None
    assert [entry.node for entry in path.outside.entries] == ["node1"]  # it has the endpoint
    assert [each.node for each in path.outside.closed] == ["node2"]
    assert agents(bundle) == {"node1"}
    assert path.verdict.let_through
    lists = [r.command for r in bundle.records if r.place.kind is PlaceKind.API]
    assert "get services -A" not in lists  # the Service was named
    assert "get leases -n kube-system cilium-l2announce-default-web-lb" in lists


def test_the_node_that_announces_an_address_is_asked(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    name = "cilium-l2announce-default-web-lb"
    lease = {"metadata": {"name": name, "namespace": "kube-system"}, "kind": "Lease",
             "spec": {"holderIdentity": "node2"}}  # fmt: skip
    replay.objects.append(lease)
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    path = explain(asked, bundle)
    assert path.outside is not None
    assert [entry.node for entry in path.outside.entries] == ["node2"]
    assert agents(bundle) == {"node1", "node2"}
    assert path.verdict == "dropped"  # announced by a node without an endpoint: Local


def test_advertisements_are_read_where_cilium_speaks_bgp(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    wanted = "get ciliumbgpadvertisements"
    assert wanted not in [r.command for r in bundle.records]
    replay.named("ConfigMap", "cilium-config")["data"]["enable-bgp-control-plane"] = "true"
    edge = {"metadata": {"name": "edge"}, "kind": "CiliumBGPAdvertisement",
            "apiVersion": "cilium.io/v2", "spec": {"advertisements": [
                {"advertisementType": "Service", "selector": {},
                 "service": {"addresses": ["LoadBalancerIP"]}}]}}  # fmt: skip
    replay.objects.append(edge)
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    assert [r.ok for r in bundle.records if r.command == wanted] == [True]
    path = explain(asked, bundle)
    assert [one for one in path.presumed if "CiliumBGPAdvertisement edge selects it" in one]


def test_only_rows_of_the_packets_addresses_come_home(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    ipcache = next(r for r in bundle.records if "ipcache" in r.command)
    assert str(CLIENT) in ipcache.line_filter
    whole = replay.bundle.record(ipcache.place, ipcache.argv)
    assert whole is not None
    path = explain(asked, bundle)
    assert path.verdict.let_through
    assert not [hop for hop in path.hops if "was not asked" in hop.reason]


def test_via_asks_that_node_and_the_backends(cluster: Opened) -> None:
    session, _ = cluster("vxlan-kpr")
    words = from_outside(via="node2", **to("service", "web-lb", 80))
    asked, bundle = looked(session, words, timeout=50)
    assert agents(bundle) == {"node1", "node2"}
    path = explain(asked, bundle)
    assert path.outside is not None
    assert [entry.node for entry in path.outside.entries] == ["node2"]


@pytest.mark.parametrize("address", ["172.30.0.12", "10.111.111.129"])
def test_an_address_leads_to_its_node_or_to_a_services_nodes(cluster: Opened, address: str) -> None:
    session, _ = cluster("vxlan-kpr")
    asked, bundle = looked(session, from_outside(destination=address), timeout=50)
    path = explain(asked, bundle)
    assert path.outside is not None
    entered = {entry.node for entry in path.outside.entries}
    assert entered == ({"node2"} if address == "172.30.0.12" else {"node1"})
    assert entered <= agents(bundle)


def test_what_is_no_client_outside_ends_the_run_before_a_place_is_asked(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    with pytest.raises(UsageError, match="no client outside: node node1 has it"):
        looked(session, from_outside("172.30.0.11", **to("service", "web-lb")), timeout=50)
    with pytest.raises(NotFound, match="node9"):
        looked(session, from_outside(via="node9", **to("service", "web-lb")), timeout=50)
    assert replay.execs == []


def test_the_address_of_a_pod_is_that_pod(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    address = replay.pod("client")["status"]["podIP"]
    asked, bundle = looked(session, from_outside(address, **to("service", "web", 80)))
    assert (asked.source, asked.source_address, asked.ip_version) == (address, None, 4)
    assert agents(bundle) >= {"node2"}
    path = explain(asked, bundle)
    assert (path.source.kind, path.source.name, path.outside) == ("pod", "client", None)


def test_the_address_of_a_pod_enters_where_a_node_is_named(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    address = replay.pod("client")["status"]["podIP"]
    words = from_outside(address, via="node1", **to("service", "web-lb", 80))
    with pytest.raises(UsageError, match="no client outside: pod default/client has it"):
        looked(session, words, timeout=50)


def test_a_lease_that_may_not_be_read_is_said(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.refused.add("leases")
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    path = explain(asked, bundle)
    assert path.outside is not None
    assert [entry.node for entry in path.outside.entries] == ["node1"]
    assert "was not read (get leases" in path.outside.why
    assert path.verdict.let_through


def test_nodes_that_may_not_be_listed_leave_the_question_open(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.refused.add("nodes")
    asked, bundle = looked(session, from_outside(**to("service", "web-lb", 80)), timeout=50)
    assert explain(asked, bundle).verdict == "unknown"
