"""What a DNS name is to a pod: by its own look-up, else by its files and the cluster's objects.

A name is what the pod's resolver says. Where nothing can run in the pod, its resolv.conf (or what
kubelet writes into one, by dnsPolicy) says which names would be asked for, in which order, and
those of the cluster's domain are Services by the DNS specification (github.com/kubernetes/dns,
docs/specification.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from kubectl_ebpfnet.explain.path.pod_lookup import by_getent, by_nslookup, unusable
from kubectl_ebpfnet.explain.path.resolver import (
    NameAnswer,
    NameSources,
    asks_the_nodes_resolver,
    cluster_candidates,
    domain_of,
    facts_of,
    resolver_config,
)
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.json_members import address as address_of
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.resolver import LookupOutcome, ResolverConfig
from kubectl_ebpfnet.parse import lookup

_UNIQUE_LOCAL = ip_network("fc00::/7")
DNS = 53
"""Port of nameservers."""


def look_up(name: str, sources: NameSources) -> NameAnswer:
    """Return what a name is to a pod."""
    config, _ = resolver_config(sources)
    return replace(_look_up(name, sources), names=config.candidates(name))


def _look_up(name: str, sources: NameSources) -> NameAnswer:
    config, config_record = resolver_config(sources)
    server = config.nameservers[0] if config.nameservers else None
    asked = by_getent(name, sources, server)
    if asked.outcome is LookupOutcome.FOUND:
        return asked
    by_server = by_nslookup(name, sources, config, server)
    if by_server is not None and by_server.outcome is not LookupOutcome.NOTHING:
        if by_server.outcome is LookupOutcome.FOUND and asked.asked:
            return unusable(name, asked, by_server)
        return by_server
    if asked.asked:
        return asked
    by_files = _by_hosts(name, sources)
    by_objects = by_files or _by_objects(name, sources, config, cite.whole(config_record))
    if by_objects is None:
        by_objects = _by_agent(name, sources, asked) or _by_this_machine(name, sources, asked)
    if by_objects is not None:
        return by_objects
    names = " and ".join(config.candidates(name))
    would = f"; the pod would ask {server} for {names}" if server else ""
    if asks_the_nodes_resolver(sources.pod):
        would += "; its resolver is the node's, which knows no Services (dnsPolicy Default)"
    return replace(asked, text=asked.text + would)


def cluster_names(name: str, sources: NameSources) -> list[tuple[str, str]]:
    """Return (namespace, name) of the Services that a name may be, in the order of the search."""
    config, _ = resolver_config(sources)
    found = []
    for candidate in cluster_candidates(name, config, sources):
        labels = _service_labels(candidate, domain_of(config))
        if labels is not None:
            found.append((labels[-1], labels[-2]))
    return list(dict.fromkeys(found))


def preferred(answer: NameAnswer, own: Sequence[Address], version: int | None) -> Address | None:
    """Return the address that the pod connects to first, None where it has none of its family.

    Args:
        answer: of the look-up.
        own: addresses of the pod; () when not known.
        version: of IP where the user asked for one.
    """
    families = {version} if version else {each.version for each in own} or {4, 6}
    usable = [each for each in answer.addresses if each.version in families]
    if answer.ordered or not usable:
        return next(iter(usable), None)
    # RFC 6724 6, rule 5: a source with the destination's label is better; then IPv6 before IPv4.
    # A unique local source has another label than a global destination (policy table, fc00::/7).
    labels = {each in _UNIQUE_LOCAL for each in own if each.version == 6}
    six = [each for each in usable if each.version == 6]
    if six and (not own or (six[0] in _UNIQUE_LOCAL) in labels):
        return six[0]
    return next((each for each in usable if each.version == 4), usable[0])


# --- without a look-up by the pod -----------------------------------------------------------------


def _by_hosts(name: str, sources: NameSources) -> NameAnswer | None:
    """Return what the pod's /etc/hosts says, or what kubelet writes into it."""
    wanted = name.rstrip(".").lower()
    found: list[Address] = []
    proof: tuple[Evidence, ...] = ()
    for entry, record in facts_of(sources.inside, q.HOSTS):
        if wanted in entry.names:
            found.append(entry.address)
            proof += cite.of(record, entry.span)
    pod = sources.pod
    if not found and pod is not None:
        aliases = pod.host_aliases
        found = [each for each, names in aliases if wanted in map(str.lower, names)]
    if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
        found = [ip_address("127.0.0.1"), ip_address("::1")]  # RFC 6761 6.3, and kubelet's file
    if not found:
        return None
    text = f"{name} is {found[0]} in /etc/hosts of the pod"
    return NameAnswer(
        LookupOutcome.FOUND, tuple(found), None, text, ordered=True, by_pod=False, evidence=proof
    )


def _by_objects(
    name: str, sources: NameSources, config: ResolverConfig, proof: tuple[Evidence, ...]
) -> NameAnswer | None:
    """Return the Service, endpoint or pod that a name of the cluster's domain is."""
    domain = domain_of(config)
    for candidate in cluster_candidates(name, config, sources):
        found = _of_candidate(candidate, domain, sources)
        if found is None:
            continue
        service, address, what = found
        text = f"cluster DNS calls {what} so; no look-up is recorded"
        addresses = (address,) if address is not None else ()
        return NameAnswer(
            LookupOutcome.FOUND, addresses, service, text, by_pod=False, evidence=proof
        )
    return None


def _service_labels(candidate: str, domain: str) -> list[str] | None:
    """Return [HOST,] SERVICE, NAMESPACE of a name below `svc.DOMAIN`, None for another name."""
    rest = candidate.removesuffix(f".svc.{domain}")
    labels = rest.split(".")
    return labels if rest != candidate and len(labels) in (2, 3) else None


def _of_candidate(
    candidate: str, domain: str, sources: NameSources
) -> tuple[Service | None, Address | None, str] | None:
    rest, dot, _ = candidate.removesuffix(f".pod.{domain}").partition(".")
    if candidate.endswith(f".pod.{domain}") and dot:
        dashed = rest.replace("-", ".") if rest.count("-") == 3 else rest.replace("-", ":")
        address = address_of(dashed)
        return (None, address, f"the address {address}") if address is not None else None
    labels = _service_labels(candidate, domain)
    if labels is None:
        return None
    service, namespace = labels[-2:]
    for each in sources.services:
        if len(labels) == 2 and (each.namespace, each.name) == (namespace, service):
            return each, None, f"svc {namespace}/{service}"
    for end in sources.endpoints:
        if len(labels) == 3 and (end.namespace, end.service, end.pod) == (
            namespace, service, labels[0],
        ):  # fmt: skip
            return None, end.address, f"pod {namespace}/{end.pod} of svc {service}"
    return None


def _by_agent(name: str, sources: NameSources, asked: NameAnswer) -> NameAnswer | None:
    """Return by which addresses the agent of the pod's node knows the name (path/fqdn.py)."""
    addresses, how, proof = sources.learned
    if not addresses:
        return None
    text = f"{name} is {addresses[0]} to the agent of its node, by {how}; no look-up is recorded"
    return NameAnswer(
        LookupOutcome.FOUND, addresses, None, text, asked.nameserver, by_pod=False, evidence=proof
    )


def _by_this_machine(name: str, sources: NameSources, asked: NameAnswer) -> NameAnswer | None:
    """Return what this machine's resolver said, which may differ from what the pod would get."""
    for record in sources.here:
        if record.ok and record.argv[-1:] == (name,):
            found = lookup.addresses(record.beginning)
            if found:
                text = f"{name} is {found[0]} to {record.place}, which may differ in the pod"
                return NameAnswer(
                    LookupOutcome.FOUND, found, None, text, asked.nameserver, by_pod=False,
                    evidence=cite.whole(record),
                )  # fmt: skip
    return None
