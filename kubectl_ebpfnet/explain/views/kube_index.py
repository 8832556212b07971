"""Kubernetes objects by what they are looked up by.

A look-up costs the same in a cluster of ten Services as of ten thousand: each index is made once,
when it is asked for first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from kubectl_ebpfnet.explain.views.answer import grouped
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.kube import AGENT_LABEL, KubeObjects, Pod, Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Address


class KubeIndex:
    """The objects of a bundle by address, port and name. What is found comes in the order of the
    objects: the first of two that both fit counts."""

    def __init__(self, kube: KubeObjects) -> None:
        self._kube = kube

    def service(self, namespace: str, name: str) -> Service | None:
        """Return the Service of this name, None where it is not recorded."""
        return next(iter(self._by_name.get((namespace, name), ())), None)

    def services_with(self, address: Address) -> Sequence[Service]:
        """Return the Services with this cluster, external or ingress address."""
        return self._in_order(self._by_address.get(address, ()))

    def services_at(self, address: Address, node_port: int) -> Sequence[Service]:
        """Return the Services with this address, and those with this port of every node."""
        numbers = {*self._by_address.get(address, ()), *self._by_node_port.get(node_port, ())}
        return self._in_order(sorted(numbers))

    def health_checked_at(self, port: int) -> Sequence[Service]:
        """Return the Services whose health check is answered at this port of each node."""
        return self._by_health_check.get(port, ())

    def endpoints_of(self, namespace: str, service: str) -> Sequence[ServiceEndpoint]:
        """Return what EndpointSlices name for a Service; () also where none was read."""
        return self._endpoints.get((namespace, service), ())

    def cilium_endpoint(self, namespace: str, pod: str) -> Endpoint | None:
        """Return the CiliumEndpoint of a pod, None where it is not recorded."""
        return next(iter(self._cilium_endpoints.get((namespace, pod), ())), None)

    def cilium_endpoints_numbered(self, number: int) -> Sequence[tuple[Endpoint, Address | None]]:
        """Return the CiliumEndpoints with this id, which each node gives for itself, each with the
        address of its node, None where it has none."""
        return self._cilium_endpoints_by_id.get(number, ())

    @cached_property
    def agents(self) -> dict[str, Pod]:
        """Cilium's agent pods by node; of two on a node, the healthier one."""
        found: dict[str, Pod] = {}
        for pod in self._kube.pods:
            if not pod.node or pod.label(AGENT_LABEL[0]) != AGENT_LABEL[1]:
                continue
            other = found.get(pod.node)
            if other is None or _health(pod) > _health(other):
                found[pod.node] = pod
        return found

    def _in_order(self, numbers: Iterable[int]) -> list[Service]:
        return [self._kube.services[number] for number in numbers]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], list[Service]]:
        return grouped(self._kube.services, lambda service: (service.namespace, service.name))

    @cached_property
    def _by_address(self) -> dict[Address, list[int]]:
        found: dict[Address, list[int]] = {}
        for number, service in enumerate(self._kube.services):
            for address in dict.fromkeys(service.addresses):
                found.setdefault(address, []).append(number)
        return found

    @cached_property
    def _by_node_port(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number, service in enumerate(self._kube.services):
            for port in dict.fromkeys(port.node_port for port in service.ports if port.node_port):
                found.setdefault(port, []).append(number)
        return found

    @cached_property
    def _by_health_check(self) -> dict[int, list[Service]]:
        return grouped(self._kube.services, lambda service: service.health_check_node_port)

    @cached_property
    def _endpoints(self) -> dict[tuple[str, str], list[ServiceEndpoint]]:
        return grouped(self._kube.endpoints, lambda end: (end.namespace, end.service))

    @cached_property
    def _cilium_endpoints(self) -> dict[tuple[str, str], list[Endpoint]]:
        every = [endpoint for endpoint, _ in self._kube.cilium_endpoints]
        return grouped(every, lambda endpoint: (endpoint.namespace, endpoint.pod))

    @cached_property
    def _cilium_endpoints_by_id(self) -> dict[int, list[tuple[Endpoint, Address | None]]]:
        return grouped(self._kube.cilium_endpoints, lambda each: each[0].id)


def _health(pod: Pod) -> tuple[bool, bool]:
    return pod.ready, pod.phase == "Running"
