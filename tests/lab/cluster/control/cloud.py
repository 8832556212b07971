"""What a cloud's controllers do for Services of type LoadBalancer, as far as the lab needs it.

A Service gets the address it asks for, or one of a pool, in its status, as cloud-controller-manager
writes it (k8s.io/cloud-provider, service controller); kube-proxy on every node programs it from
there. No device stands behind the address: tests send the frames to a node themselves.
Pods with our readiness gate are put in service once, as controllers of target groups do; tests take
them out again (lb_faults.py). Readiness gates: KEP-580.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.lab.cluster.config import LB_POOL
from tests.lab.cluster.control.api import Api, Object
from tests.lab.cluster.control.manifests import IN_SERVICE


def give_addresses(api: Api, services: Iterable[Object]) -> None:
    """Give every Service of type LoadBalancer without an address one, if there is one left."""
    balanced = [one for one in services if one["spec"].get("type") == "LoadBalancer"]
    taken = {ip for one in balanced for ip in (*_ingress(one), one["spec"].get("loadBalancerIP"))}
    for one in balanced:
        if _ingress(one):
            continue
        free = [ip for ip in LB_POOL if ip not in taken]
        address = one["spec"].get("loadBalancerIP") or (free[0] if free else "")
        if address:
            taken.add(address)
            ingress = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
            meta = one["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
            api.ask("PATCH", path, ingress, "application/merge-patch+json")


def put_in_service(api: Api, pods: Iterable[Object]) -> None:
    """Fulfil our readiness gate for pods about which nobody has said anything yet."""
    for pod in pods:
        gates = {gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()}
        known = {one["type"] for one in pod.get("status", {}).get("conditions") or ()}
        if IN_SERVICE in gates - known:
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
            status = {"status": {"conditions": [{"type": IN_SERVICE, "status": "True"}]}}
            api.ask("PATCH", path, status, "application/strategic-merge-patch+json")


def _ingress(service: Object) -> list[str]:
    """Addresses that a Service's status holds."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    return [one["ip"] for one in ingress if "ip" in one]
