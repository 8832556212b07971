"""Kubernetes objects by what they are looked up by."""

from __future__ import annotations

from ipaddress import ip_address

from kubectl_ebpfnet.explain.views.kube_index import KubeIndex
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.kube import KubeObjects, Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.model.net import TCP

ONE, TWO, NODE = map(ip_address, ("10.96.0.1", "192.0.2.2", "172.30.0.11"))


def service(name: str, *addresses: str, node_port: int = 0, health: int = 0) -> Service:
    own, *outside = map(ip_address, addresses)
    port = ServicePort("http", TCP, 80, "8080", node_port)
    return Service(
        "shop", name, "LoadBalancer", (own,), (port,), ingress_addresses=tuple(outside),
        health_check_node_port=health,
    )  # fmt: skip


FIRST = service("a", "10.96.0.1", "192.0.2.2", node_port=30080)
SECOND = service("b", "10.96.0.2", "192.0.2.2", health=31000)
THIRD = service("c", "10.96.0.3", node_port=30080)
INDEX = KubeIndex(KubeObjects(services=(FIRST, SECOND, THIRD)))


def test_services_come_in_the_order_of_the_objects() -> None:
    assert list(INDEX.services_with(TWO)) == [FIRST, SECOND]
    assert list(INDEX.services_with(NODE)) == []
    assert list(INDEX.services_at(TWO, 30080)) == [FIRST, SECOND, THIRD]
    assert list(INDEX.services_at(ONE, 0)) == [FIRST]
    assert list(INDEX.health_checked_at(31000)) == [SECOND]


def test_a_service_by_its_name() -> None:
    assert INDEX.service("shop", "b") is SECOND
    assert INDEX.service("other", "b") is None


def test_endpoints_of_a_service_and_of_a_pod() -> None:
    ends = [
        ServiceEndpoint("shop", name, ip_address(f"10.0.0.{n}"), "", TCP, 8080, True, True, False)
        for n, name in enumerate("aba", 1)
    ]
    of_pods = tuple(
        (Endpoint(id=7, identity=n, namespace="shop", pod=f"p{n}"), NODE) for n in (1, 2)
    )
    index = KubeIndex(KubeObjects(endpoints=tuple(ends), cilium_endpoints=of_pods))
    assert list(index.endpoints_of("shop", "a")) == [ends[0], ends[2]]
    assert list(index.endpoints_of("shop", "c")) == []
    assert index.cilium_endpoint("shop", "p2") == of_pods[1][0]
    assert index.cilium_endpoint("shop", "p3") is None
    assert list(index.cilium_endpoints_numbered(7)) == list(of_pods)
