"""Temporary copies of a Service to probe, one for each externalTrafficPolicy.

The user's own Service is never changed. A copy has the same selector and ports, a name of its own,
and an address if the cluster assigns one; it carries our labels, so `cleanup` finds the copies of a
killed run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from kubectl_ebpfnet.cluster.client.api import CORE, Api, Object
from kubectl_ebpfnet.cluster.nodepods.deployment import whoami
from kubectl_ebpfnet.cluster.nodepods.leftovers import delete
from kubectl_ebpfnet.cluster.nodepods.manifest import NodePodOptions, Run, object_metadata
from kubectl_ebpfnet.cluster.signals import DeferredSignals
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.parse import kube

POLICIES = ("Local", "Cluster")
_ADDRESS_SECONDS = 20.0
_PAUSE_SECONDS = 0.5
_GONE_SECONDS = 5.0
_PORT_FIELDS = ("name", "protocol", "port", "targetPort", "appProtocol")
_SPEC_FIELDS = ("selector", "ipFamilies", "ipFamilyPolicy", "loadBalancerClass",
                "loadBalancerSourceRanges", "sessionAffinity")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copy:
    """An existing copy: its name, and whether the cluster assigned an address."""

    name: str
    has_address: bool


def manifest(service: Object, policy: str, name: str, run: Run) -> dict[str, Any]:
    """Return the manifest of a copy.

    Args:
        service: the user's Service, as the API returns it.
        policy: externalTrafficPolicy of the copy.
        name: of the copy.
        run: the run that creates it, for its labels.
    """
    spec = service.get("spec") or {}
    ports = [{k: port[k] for k in _PORT_FIELDS if k in port} for port in spec.get("ports") or []]
    kept = {k: spec[k] for k in _SPEC_FIELDS if spec.get(k)}
    annotations = {
        key: value
        for key, value in ((service.get("metadata") or {}).get("annotations") or {}).items()
        # Annotations that configure the load-balancer (internal, pool); not the notes of tools.
        if "load-balancer" in key or "loadbalancer" in key.lower() or key.startswith("lbipam.")
    }
    ours = object_metadata(run, NodePodOptions())
    metadata = {**ours, "name": name, "annotations": {**annotations, **ours["annotations"]}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {**kept, "type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": ports},
    }


@contextlib.contextmanager
def copies(
    api: Api, namespace: str, service: str, warn: Callable[[str], object]
) -> Iterator[list[Copy]]:
    """Create a copy for each policy; both are removed at the end of the block, however it ends.

    Args:
        api: creates and deletes.
        namespace, service: the user's Service.
        warn: takes lines that the user must read.

    Raises:
        NotFound: there is no such Service.
        Forbidden: this user may not create Services in the namespace.
        ClusterError: the API server refuses for another reason, or cannot be reached.
    """
    original = api.service(namespace, service)
    path = f"{CORE}/namespaces/{namespace}/services"
    run = Run(whoami(), api.session.clock.now())
    names = {policy: f"{service[:40]}-ebpfnet-{run.id}-{policy.lower()}" for policy in POLICIES}
    made: list[str] = []
    try:
        for policy, name in names.items():
            warn(f"creating svc/{name}, a copy with externalTrafficPolicy {policy}")
            made.append(name)  # before the call: a lost answer must not leave the copy behind
            api.create(path, manifest(original, policy, name, run))
        yield [Copy(name, _has_address(api, namespace, name)) for name in made]
    finally:
        with DeferredSignals():
            _remove(api, path, made, warn)


def _remove(api: Api, path: str, names: list[str], warn: Callable[[str], object]) -> None:
    until = time.monotonic() + _GONE_SECONDS
    for name in names:
        try:
            delete(api, f"{path}/{name}", until=until)
        except ClusterError as error:
            warn(f"svc/{name} is left behind ({error}); `kubectl ebpfnet cleanup` removes it")


def _has_address(api: Api, namespace: str, name: str) -> bool:
    """Wait for a load-balancer controller to assign an address; tell whether one did."""
    until = time.monotonic() + _ADDRESS_SECONDS
    while True:
        made = kube.service(api.service(namespace, name))
        if made.ingress_addresses or made.ingress_hostnames:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE_SECONDS)
