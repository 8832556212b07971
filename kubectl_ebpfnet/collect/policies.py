"""Read the policies that may allow or deny a packet, and what their rules call by a name.

A namespace's policies are read once, beside everything else of the first round; those of another
namespace, CIDR groups and Services are read where a pod, or a rule, shows the need, while places
are asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.model import json_members as js

NETWORK_POLICIES = "/apis/networking.k8s.io/v1/{}networkpolicies"
MOST_SERVICES = 8
"""Services of `toServices` whose endpoints are read."""


class PolicyReads:
    """The reads of one run. Threads share it."""

    def __init__(self, api: RecordingApi) -> None:
        self.api = api
        self._asked: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def clusterwide(self) -> list[Callable[[], object]]:
        """Return the call that reads the policies of the whole cluster."""
        return [partial(self._cilium, "ciliumclusterwidenetworkpolicies", "")]

    def of_namespaces(self, namespaces: Iterable[str]) -> list[Callable[[], object]]:
        """Return calls that read the policies of namespaces, those that were read excepted."""
        calls: list[Callable[[], object]] = []
        for namespace in sorted({*namespaces} - {""}):
            if self._first("namespace", namespace):
                path = NETWORK_POLICIES.format(f"namespaces/{namespace}/")
                calls.append(partial(self._cilium, "ciliumnetworkpolicies", namespace))
                calls.append(partial(self.api.list, path))
        return calls

    def _cilium(self, resource: str, namespace: str) -> None:
        """Read policies of Cilium's, and what they call by a name."""
        services: list[tuple[str, str]] = []
        for policy in self.api.cilium(resource, namespace) or []:
            own = js.text(policy, "metadata", "namespace")
            for rule in _rules(policy):
                if _names_groups(rule) and self._first("groups"):
                    self.api.cidr_groups()
                for item in js.items(rule, "toServices"):
                    name = js.text(item, "k8sService", "serviceName")
                    services.append((js.text(item, "k8sService", "namespace") or own, name))
        for within, name in list(dict.fromkeys(services))[:MOST_SERVICES]:
            if within and name and self._first("service", within, name):
                self.api.endpoint_slices(within, name)

    def _first(self, *what: str) -> bool:
        with self._lock:
            known = what in self._asked
            self._asked.add(what)
        return not known


def _rules(policy: Any) -> Iterator[Any]:
    for spec in (js.dig(policy, "spec"), *js.items(policy, "specs")):
        for member in ("ingress", "egress", "ingressDeny", "egressDeny"):
            yield from js.items(spec, member)


def _names_groups(rule: Any) -> bool:
    return any(
        js.dig(item, member) is not None
        for of in ("fromCIDRSet", "toCIDRSet")
        for item in js.items(rule, of)
        for member in ("cidrGroupRef", "cidrGroupSelector")
    )
