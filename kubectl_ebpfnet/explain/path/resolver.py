"""A pod's resolver: its resolv.conf, else what kubelet writes into one by the pod's dnsPolicy.

`NameSources` is what a look-up goes by, `NameAnswer` what it comes to.

Kubelet: pkg/kubelet/network/dns/dns.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import TypeVar

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import records
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.kube import Pod, Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.resolver import LookupOutcome, ResolverConfig

T = TypeVar("T")

DOMAIN = "cluster.local"
"""The cluster's domain where no resolv.conf tells it: kubelet's --cluster-domain of kubeadm."""
_NDOTS = 5  # of kubelet, for ClusterFirst


@dataclass(frozen=True, slots=True)
class NameSources:
    """What may tell what a name is.

    Attributes:
        namespace: of the pod that asks.
        pod: None where its object is not recorded.
        inside: records of the pod.
        services, endpoints: those that are recorded.
        here: records of this machine.
        learned: by which addresses the agent of the pod's node knows the name, how, and the proof.
    """

    namespace: str
    pod: Pod | None
    inside: Sequence[Record]
    services: Sequence[Service] = ()
    endpoints: Sequence[ServiceEndpoint] = ()
    here: Sequence[Record] = ()
    learned: tuple[tuple[Address, ...], str, tuple[Evidence, ...]] = ((), "", ())


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """What a name is.

    Attributes:
        outcome: of the look-up.
        addresses: in the order in which the pod would take them, where `ordered`.
        service: the Service that the name is, by its object alone; None for an address.
        text: one sentence: how it was found, or why it was not.
        nameserver: who was asked, or would be; None when not known.
        ordered: the pod's C library has ordered the addresses (RFC 6724).
        by_pod: the pod's own look-up says it.
        evidence: the proof.
        names: complete ones that the pod asks for, one after the other.
    """

    outcome: LookupOutcome
    addresses: tuple[Address, ...] = ()
    service: Service | None = None
    text: str = ""
    nameserver: Address | None = None
    ordered: bool = False
    by_pod: bool = True
    evidence: tuple[Evidence, ...] = field(default=())
    names: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether the pod looked the name up."""
        return self.outcome is not LookupOutcome.NOT_ASKED


def resolver_config(sources: NameSources) -> tuple[ResolverConfig, Record | None]:
    """Return a pod's resolv.conf, and its record; without one, what kubelet writes."""
    for found, record in facts_of(sources.inside, q.RESOLV_CONF):
        return found, record
    for record in sources.inside:
        if record.ok and record.argv in q.RESOLV_CONF.forms:
            return ResolverConfig(), record  # an empty file
    pod = sources.pod
    policy = pod.dns_policy if pod is not None else ""
    in_cluster = policy == "ClusterFirstWithHostNet" or (
        policy in ("", "ClusterFirst") and not (pod is not None and pod.host_network)
    )
    config = ResolverConfig()
    if in_cluster:
        search = (f"{sources.namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN)
        config = ResolverConfig(tuple(_cluster_resolvers(sources))[:1], search, _NDOTS)
    if pod is None:
        return config, None
    ndots = config.ndots if pod.dns.ndots is None else pod.dns.ndots
    servers = (*config.nameservers, *pod.dns.nameservers)
    return ResolverConfig(servers, (*config.search, *pod.dns.searches), ndots), None


def asks_the_nodes_resolver(pod: Pod | None) -> bool:
    """Tell whether kubelet gives the pod the resolv.conf of its node."""
    return pod is not None and (
        pod.dns_policy == "Default" or (pod.dns_policy in ("", "ClusterFirst") and pod.host_network)
    )


def facts_of(found: Sequence[Record], fact: Fact[T]) -> Iterator[tuple[T, Record]]:
    """Yield what records say of a fact, each with its record; () of those that cannot be read."""
    for record in found:
        if record.ok and record.argv in fact.forms:
            try:
                for each in records.parse(fact, record):
                    yield each, record
            except ParseError:
                continue


def _cluster_resolvers(sources: NameSources) -> Iterator[Address]:
    for service in sources.services:
        if (service.namespace, service.name) == ("kube-system", "kube-dns"):
            yield from service.cluster_addresses


def domain_of(config: ResolverConfig) -> str:
    """Return the cluster's domain, which the search list has as `svc.DOMAIN`."""
    found = (each.removeprefix("svc.") for each in config.search if each.startswith("svc."))
    return next(found, DOMAIN)


def cluster_candidates(name: str, config: ResolverConfig, sources: NameSources) -> tuple[str, ...]:
    """Return the names that the pod would ask a resolver of the cluster for, () for none."""
    candidates = tuple(each.lower() for each in config.candidates(name))
    if any(domain.startswith("svc.") for domain in config.search):
        return candidates
    if any(server in tuple(_cluster_resolvers(sources)) for server in config.nameservers):
        return candidates
    # Which nameserver the cluster's is, is not recorded: a whole name of a Service is meant for it.
    policy = sources.pod.dns_policy if sources.pod is not None else ""
    whole = name.lower().rstrip(".")
    if config.nameservers and policy not in ("Default", "None"):
        return tuple(each for each in candidates if each == whole and each.endswith(f".{DOMAIN}"))
    return ()
