"""A frontend and its backends, as the place that looks it up has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.backends import Place
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.model.net import Address, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Evidence

_L7 = "l7-load-balancer"
_PROXY_DUMMY = ip_address("192.192.192.192")
"""The endpoint that Cilium's Gateway and Ingress Services are given: nothing has it
(operator/pkg/model/translation)."""


HEALTH_CHECK = "healthserver"
"""What Cilium's name of the frontend of a health check ends with, behind a colon."""
_REDIRECTS = (":local-redirect", "-local-redirect")
"""Ends of the names of frontends by address, behind their policy's (pkg/redirectpolicy)."""
_GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
AFFINITY = "service.cilium.io/affinity"
_AFFINITIES = (AFFINITY, "io.cilium/service-affinity")


def is_global(service: Service) -> bool:
    """Tell whether a Service takes endpoints of other clusters (clustermesh)."""
    return any(service.annotation(key).lower() == "true" for key in _GLOBAL)


def affinity_word(service: Service) -> str:
    """Return the affinity that a Service's annotation names, in lower case; "" for none."""
    return next(filter(None, map(service.annotation, _AFFINITIES)), "").lower()


def affinity_of(service: Service) -> str:
    """Return which clusters' endpoints a global Service prefers: `local`, `remote`; "" for any."""
    said = affinity_word(service)
    return said if is_global(service) and said in ("local", "remote") else ""


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A frontend and its backends.

    Attributes:
        address, port, protocol: of the frontend.
        type: ClusterIP, NodePort, LoadBalancer, …
        namespace, name: of the Service, "" when not known.
        rev_nat: Cilium's reverse NAT id, 0 when Cilium does not have the frontend.
        in_cilium: Cilium's load-balancer on the node translates the frontend where it was looked
            up; None where neither of its tables was read.
        backends: all of them, with their state.
        evidence: the proof.
        missing: why the backends are not known, "" when they are.
        mapped: backends in the datapath's map, None where the map was not read.
        sliced: what EndpointSlices name; None where no slice could be read, or no Service of
            Kubernetes is behind the frontend.
        owner: the Service, None when none is recorded.
        rivals: other Services with the same address and port.
        flags: Cilium's words, e.g. `Local`, `InternalLocal`, `l7-load-balancer`.
        proxy_port: of the node's Envoy for an L7 load-balancer, 0 where not known.
        unresolved: slots of the map whose backend is missing.
        unread: for in_cilium None: why neither table was read.
        slotted: the map numbers its slots (Cilium 1.12 and later), None when that is not known.
        by_protocol: the map's keys have a protocol (Cilium 1.17 and later).
        passed_over: a socket leaves it alone, though the map has it: an external IP, or a hostPort,
            that is not the node's own address.
    """

    address: Address
    port: int
    protocol: int
    type: str
    namespace: str
    name: str
    rev_nat: int
    in_cilium: bool | None
    backends: tuple[Backend, ...]
    evidence: tuple[Evidence, ...]
    missing: str = ""
    mapped: frozenset[Place] | None = None
    sliced: tuple[ServiceEndpoint, ...] | None = None
    owner: Service | None = None
    rivals: tuple[Service, ...] = ()
    flags: frozenset[str] = frozenset()
    proxy_port: int = 0
    unresolved: int = 0
    unread: str = ""
    slotted: bool | None = None
    by_protocol: bool = False
    passed_over: bool = False

    @property
    def usable(self) -> tuple[Backend, ...]:
        """Backends that take new connections."""
        there = (b for b in self.backends if self.mapped is None or kinds.place(b) in self.mapped)
        return kinds.taking(there)

    @property
    def owner_port(self) -> ServicePort | None:
        """The port of the Service that the frontend is, None where that is not known."""
        ports = self.owner.ports if self.owner is not None else ()
        same = (p for p in ports if p.protocol == self.protocol)
        return next((p for p in same if self.port in (p.port, p.node_port)), None)

    @property
    def by_proxy(self) -> bool:
        """The node's Envoy takes its traffic, so it has no backends of its own."""
        places = [*map(kinds.place, self.backends), *map(kinds.place, self.sliced or ())]
        dummy = any(address == _PROXY_DUMMY for address, _ in places)
        return _L7 in self.flags or bool(self.proxy_port) or dummy

    @property
    def checks_source(self) -> bool:
        """Its load-balancer lets some sources in alone (loadBalancerSourceRanges)."""
        return "check source-range" in self.flags

    @property
    def redirects_locally(self) -> bool:
        """A CiliumLocalRedirectPolicy chose its backends."""
        return self.type == "LocalRedirect"

    @property
    def named_elsewhere(self) -> bool:
        """Local redirect policies, Envoy and other clusters (clustermesh) give it backends that no
        EndpointSlice of the Service names."""
        shared = self.owner is not None and is_global(self.owner)
        return self.redirects_locally or self.by_proxy or shared

    def stale(
        self, backends: Iterable[Backend], has_pod: Callable[[Address], bool]
    ) -> list[Backend]:
        """Return those of some backends that the Service has lost and Cilium still has.

        Args:
            backends: of the frontend.
            has_pod: tells whether a pod of this cluster has an address. Of a Service that clusters
                share, EndpointSlices name the pods of this one alone.
        """
        if self.sliced is None or self.redirects_locally or self.by_proxy:
            return []
        named = {kinds.place(end) for end in self.sliced}
        lost = [backend for backend in backends if kinds.place(backend) not in named]
        return [one for one in lost if not self.named_elsewhere or has_pod(one.address)]

    @property
    def title(self) -> str:
        """`ClusterIP 10.96.0.10:53/UDP of svc default/web`."""
        text = f"{endpoint_text(self.address, self.port)}/{protocol_name(self.protocol)}"
        return f"{self.type or 'service'} {text}" + (f" of {self.owner_title}" if self.name else "")

    @property
    def owner_title(self) -> str:
        """`svc default/web`, or the frontend's title where no Service is known. Cilium's own
        frontends are of other objects: a hostPort's pod, a local redirect policy, a Service's
        health check (pkg/loadbalancer, pkg/redirectpolicy)."""
        if not self.name:
            return self.title
        name, _, what = self.name.replace("/", ":").partition(":")
        if what.startswith("host-port"):
            return f"pod {self.namespace}/{name}"
        if what == HEALTH_CHECK:
            return f"the health check of svc {self.namespace}/{name}"
        policy = self.redirect_policy
        return policy or f"svc {self.namespace}/{self.name}"

    @property
    def redirect_policy(self) -> str:
        """`CiliumLocalRedirectPolicy default/dns` of an address that a policy names; "" otherwise:
        a Service that a policy takes keeps its own name."""
        name = next((self.name.removesuffix(end) for end in _REDIRECTS if end in self.name), "")
        named = self.redirects_locally and name
        return f"CiliumLocalRedirectPolicy {self.namespace}/{name}" if named else ""
