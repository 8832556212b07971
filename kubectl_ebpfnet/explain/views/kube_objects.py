"""The objects of Kubernetes that a bundle has, and the records that they were read from."""

from __future__ import annotations

from functools import cached_property

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views.kube_index import KubeIndex
from kubectl_ebpfnet.model.egress_policy import EgressPolicy
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, Record
from kubectl_ebpfnet.model.kube import (
    KubeObjects,
    Node,
    NodeRow,
    Pod,
    Service,
    ServiceEndpoint,
)
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.policy import Policy
from kubectl_ebpfnet.parse import kube


def _is_of_one(record: Record) -> bool:
    """Tell whether a record is of the object that has a name."""
    return record.argv[-1].startswith("metadata.name=")


class KubeObjectsView:
    """Pods, nodes and other objects, looked up by name and address."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @cached_property
    def kube(self) -> KubeObjects:
        """Every Kubernetes object of the bundle."""
        return KubeObjects.of_all([found for _, found in self._api_facts])

    @cached_property
    def index(self) -> KubeIndex:
        """The Kubernetes objects by what they are looked up by."""
        return KubeIndex(self.kube)

    @cached_property
    def _api_facts(self) -> list[tuple[Record, KubeObjects]]:
        """Every Kubernetes object of the bundle, by record."""
        found = []
        for record in self.bundle.records:
            if record.place.kind is PlaceKind.API and record.ok:
                try:
                    found.append((record, kube.objects(record.stdout.read())))
                except ParseError:
                    continue
        return found

    @cached_property
    def understood(self) -> frozenset[int]:
        """Numbers of the API server's records whose objects were read."""
        return frozenset(record.number for record, _ in self._api_facts)

    @cached_property
    def _api_records(self) -> dict[int, Record]:
        return {
            id(fact): record
            for record, found in self._api_facts
            for kind in (
                found.pods,
                found.services,
                found.endpoints,
                found.network_policies,
                found.egress_policies,
            )
            for fact in kind
        }

    def api_record_of(
        self, fact: Pod | Service | ServiceEndpoint | Policy | EgressPolicy
    ) -> Record | None:
        """Return the record that an object of `kube` was read from, whose place is its `span`."""
        return self._api_records.get(id(fact))

    def api_record(self, *words: str) -> Record | None:
        """Return the first API record whose argv has any of the words; one of a single object only
        where there is no other."""
        asked = (r for r in self.bundle.records if r.place.kind is PlaceKind.API and r.ok)
        found = [record for record in asked if set(words) & set(record.argv)]
        return min(found, key=_is_of_one, default=None)

    def node_record(self, name: str) -> Record | None:
        """Return the record that has a Node's object, None without one."""
        only = ("get", "nodes", "--field-selector", f"metadata.name={name}")
        own = (r for r in self.bundle.records if r.argv == only and r.ok)
        return next(own, None) or self.api_record("nodes")

    def pod(self, namespace: str, name: str) -> Pod | None:
        """Return the pod, None when it is not recorded."""
        return self._pods_by_name.get((namespace, name))

    @cached_property
    def _pods_by_name(self) -> dict[tuple[str, str], Pod]:
        # The first of two with one name counts, here and below.
        return {(pod.namespace, pod.name): pod for pod in reversed(self.kube.pods)}

    def pod_with(self, address: Address) -> Pod | None:
        """Return the pod with this address, None without one; hostNetwork pods do not count, nor
        do those that have ended, whose address may be another pod's by now."""
        return next(iter(self.pods_with(address)), None)

    def pods_with(self, address: Address) -> tuple[Pod, ...]:
        """Return the pods of `pod_with`: more than one only by a fault. Those that are not being
        deleted come first."""
        return tuple(self._pods_by_address.get(address, ()))

    def has_pod(self, address: Address) -> bool:
        """Tell whether a pod of `pod_with` has an address."""
        return self.pod_with(address) is not None

    def shared(self, address: Address) -> bool:
        """Tell whether several pods have an address."""
        return len(self.pods_with(address)) > 1

    @property
    def shared_pod_addresses(self) -> dict[Address, list[Pod]]:
        """Addresses of `pods_with` that several pods have."""
        return {one: pods for one, pods in self._pods_by_address.items() if len(pods) > 1}

    @cached_property
    def _pods_by_address(self) -> dict[Address, list[Pod]]:
        found: dict[Address, list[Pod]] = {}
        for pod in self._pods_by_name.values():
            if not pod.host_network and pod.phase not in ("Succeeded", "Failed"):
                for address in dict.fromkeys(pod.addresses):
                    found.setdefault(address, []).append(pod)
        for pods in found.values():
            pods.sort(key=lambda pod: pod.deleting)
        return found

    def kube_node(self, name: str) -> Node | None:
        """Return the Kubernetes node, None when its object is not recorded."""
        return self._nodes_by_name.get(name)

    @cached_property
    def listed_nodes(self) -> dict[str, Node | NodeRow]:
        """The nodes that the API server told of, by name; a row where no Node object was read."""
        found: dict[str, Node | NodeRow] = {row.name: row for row in self.kube.node_rows}
        return found | {node.name: self._nodes_by_name[node.name] for node in self.kube.nodes}

    @cached_property
    def _nodes_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in reversed(self.kube.nodes)}
