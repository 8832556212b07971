"""Destinations that are no host's address: multicast, broadcast, link-local, and an address of the
Service range that no Service has.

Sources: tcp_v4_connect and tcp_v6_connect (net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c), udp_sendmsg;
RFC 3927 2.6.2 (no router forwards link-local); KEP-1880 (ServiceCIDR).
"""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import API
from kubectl_ebpfnet.model.net import TCP, Address
from kubectl_ebpfnet.model.path import Finding, Fix, Severity

_LISTS = (("get", "services", "-A"), ("get", "services"))
_BROADCAST = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Special:
    """What is special about a destination; the fields are those of PathEnds."""

    problem: str = ""
    fix: Fix | None = None
    refused: str = ""
    doubt: str = ""
    findings: tuple[Finding, ...] = ()


def of_address(
    cluster: ClusterView, address: Address, protocol: int, *, is_service: bool
) -> Special:
    """Return what is special about an address.

    Args:
        cluster: the bundle's indexes.
        address: of the destination.
        protocol: IANA number.
        is_service: a Service has the address and port.
    """
    if address.is_multicast or address == _BROADCAST:
        return _to_many(address, protocol)
    if address.is_link_local:
        return _link_local(address)
    return Special() if is_service or cluster.in_cluster(address) else _nobodys(cluster, address)


def _to_many(address: Address, protocol: int) -> Special:
    kind = "multicast" if address.is_multicast else "broadcast"
    if protocol == TCP:
        return Special(
            refused=f"TCP has no {kind}: connect() to {address} fails with ENETUNREACH, "
            '"Network is unreachable"'
        )
    return Special(
        problem=f"{address} is a {kind} address: its packets go to every receiver on the link, and "
        "path follows a packet to one",
        fix=Fix("Name one receiver."),
    )


def _link_local(address: Address) -> Special:
    if address.version == 6:
        return Special(
            refused=f"{address} is link-local: without a zone (%eth0) connect() fails with EINVAL, "
            '"Invalid argument"'
        )
    title = f"{address} is a link-local address"
    detail = (
        "No router forwards it (RFC 3927): only the node itself, or a cloud's hypervisor, can "
        "answer there. Metadata services and resolvers on nodes have such addresses."
    )
    return Special(findings=(Finding(Severity.INFO, title, detail),))


def _nobodys(cluster: ClusterView, address: Address) -> Special:
    """Return what is known of an address in the Service range that no Service has."""
    services = cluster.kube.services
    if cluster.index.services_with(address):
        return Special()  # of a Service, at a port that it does not have
    listed = next((r for r in map(partial(cluster.bundle.record, API), _LISTS) if r), None)
    if listed is None or not listed.ok:
        return Special()
    detail = (
        "Nothing translates it: it is sent on by route as it is. A Service that was deleted or "
        "created anew leaves such an address in configurations and caches; `kubectl get services "
        "-A -o wide` shows the addresses that there are."
    )
    proof = cite.whole(listed)
    for cidr in cluster.kube.service_cidrs:
        if address in cidr:
            title = f"{address} is in the Service range {cidr}, and no Service has it"
            proof += cite.whole(cluster.api_record("servicecidrs"))
            return Special(doubt=title, findings=(Finding(Severity.ERROR, title, detail, proof),))
    own = [a for s in services for a in s.cluster_addresses if a.version == address.version]
    below = max((each for each in own if int(each) < int(address)), key=int, default=None)
    above = min((each for each in own if int(each) > int(address)), key=int, default=None)
    if below is None or above is None:
        return Special()
    title = f"{address} lies between the ClusterIPs {below} and {above}, and no Service has it"
    return Special(findings=(Finding(Severity.WARNING, title, detail, proof),))
