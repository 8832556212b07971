"""Where the names of objects come from: a live cluster, or the capture of --from alone.

A live cluster is asked for one list, of names without objects, or for one Service or pod, within
SECONDS.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from kubectl_ebpfnet.cli.completion.given import Given
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.net import protocol_name

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.explain.views.cluster import ClusterView
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.kube import KubeObjects, Pod

SECONDS = 1.5
"""How long a request may take."""
_CLUSTER_WIDE = ("nodes", "namespaces")
"""Resources without a namespace."""
_CONTROLLERS = {
    "StatefulSet": "statefulsets", "DaemonSet": "daemonsets", "ReplicaSet": "replicasets",
    "Job": "jobs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a Service or of a pod's container; the protocol in lower case."""

    number: int
    protocol: str
    name: str = ""


class Names(Protocol):
    """Names of objects. A method raises EbpfnetError where they cannot be read."""

    def of(self, resource: str, namespace: str) -> Sequence[str]:
        """Return the names of the objects of a resource, `pods`; namespace "" is the default."""
        ...

    def ports(self, resource: str, namespace: str, name: str) -> Sequence[Port]:
        """Return the ports of one of `services` or `pods`."""
        ...


def names_for(given: Given) -> Names:
    """Return the names that a command line is about."""
    capture = given.flags.get("--from", "")
    return CapturedNames(capture) if capture else LiveNames(given)


class LiveNames:
    """Names in a live cluster."""

    def __init__(self, given: Given) -> None:
        self._given = given

    @contextlib.contextmanager
    def _api(self) -> Iterator[Api]:
        from kubectl_ebpfnet.cluster.client.api import Api
        from kubectl_ebpfnet.cluster.client.session import Session

        with Session.open(self._given.connection(within=SECONDS)) as session:
            yield Api(session)

    def of(self, resource: str, namespace: str) -> Sequence[str]:
        """Return the names of the objects of a resource."""
        with self._api() as api:
            where = "" if resource in _CLUSTER_WIDE else namespace or api.session.namespace
            return sorted(api.names(resource, where))  # a server's cache has no order

    def ports(self, resource: str, namespace: str, name: str) -> Sequence[Port]:
        """Return the ports of a Service or a pod."""
        with self._api() as api:
            where = namespace or api.session.namespace
            if resource == "services":
                listed = json_members.items(api.service(where, name), "spec", "ports")
                return [port for each in listed for port in _port(each, "port")]
            containers = json_members.items(api.pod(where, name), "spec", "containers")
            listed = [port for each in containers for port in json_members.items(each, "ports")]
            return [port for each in listed for port in _port(each, "containerPort")]


def _port(said: object, key: str) -> Iterator[Port]:
    number = json_members.number(said, key)
    if number is not None:
        protocol = json_members.text(said, "protocol") or "TCP"
        yield Port(number, protocol.lower(), json_members.text(said, "name"))


def captured(capture: str) -> Bundle | None:
    """Open the capture of --from; None for what can be read but once, such as a pipe.

    Raises:
        BundleError: it is no capture.
    """
    from kubectl_ebpfnet.capture.demo import is_demo
    from kubectl_ebpfnet.cli.sources import open_capture

    there = is_demo(capture) or os.path.isfile(capture) or os.path.isdir(capture)
    return open_capture(capture) if there else None


class CapturedNames:
    """Names in a capture."""

    def __init__(self, capture: str) -> None:
        self._capture = capture

    @cached_property
    def _cluster(self) -> ClusterView | None:
        from kubectl_ebpfnet.explain.views.cluster import ClusterView

        bundle = captured(self._capture)
        return None if bundle is None else ClusterView(bundle)

    def of(self, resource: str, namespace: str) -> Sequence[str]:
        """Return the names of the objects of a resource; workloads are those of pods."""
        cluster = self._cluster
        if cluster is None:
            return ()
        if resource == "nodes":
            return sorted(cluster.node_names)
        return sorted(set(_captured(cluster.kube, resource, namespace or "default")))

    def ports(self, resource: str, namespace: str, name: str) -> Sequence[Port]:
        """Return the ports of a Service or a pod."""
        if self._cluster is None:
            return ()
        kube, key = self._cluster.kube, (namespace or "default", name)
        if resource == "services":
            ports = [p for s in kube.services if (s.namespace, s.name) == key for p in s.ports]
            return [Port(p.port, protocol_name(p.protocol).lower(), p.name) for p in ports]
        declared = [p for pod in kube.pods if (pod.namespace, pod.name) == key for p in pod.ports]
        return [Port(p.number, protocol_name(p.protocol).lower(), p.name) for p in declared]


def _captured(kube: KubeObjects, resource: str, namespace: str) -> Iterator[str]:
    if resource == "namespaces":
        yield from (pod.namespace for pod in kube.pods)
        yield from (service.namespace for service in kube.services)
    elif resource == "services":
        yield from (each.name for each in kube.services if each.namespace == namespace)
    else:
        pods = (pod for pod in kube.pods if pod.namespace == namespace)
        yield from (name for pod in pods for name in _names_of(pod, resource))


def _names_of(pod: Pod, resource: str) -> Iterator[str]:
    """Yield the pod's name, or that of a workload that runs it (Pod.belongs_to)."""
    if resource == "pods":
        yield pod.name
    elif resource == "deployments" and pod.owner_kind == "ReplicaSet":
        yield pod.owner_name.rpartition("-")[0]
    elif resource == _CONTROLLERS.get(pod.owner_kind):
        yield pod.owner_name
