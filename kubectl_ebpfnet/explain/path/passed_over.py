"""Frontends that the load-balancer at sockets leaves alone: external IPs and hostPorts that are not
the node's own address, so that no pod can take the traffic of an address that it does not have.

Source: Cilium bpf/bpf_sock.c (sock4_skip_xlate; CVE-2020-8554). The program at a pod's device asks
for no such thing, where it balances too (ENABLE_PER_PACKET_LB of bpf/bpf_lxc.c).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path.endings import Arrived, Destination, Dropped
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.model.path import Fix, HopKind, HopPlace, Packet, Severity, State

_KINDS = {"ExternalIPs": "an external IP", "HostPort": "a hostPort"}


def show(walk: PathBuilder, packet: Packet, service: ServiceAddress, where: Where) -> None:
    """Add the hop of the socket that leaves a frontend's address as it is.

    Args:
        walk: takes the hop.
        packet: for the frontend.
        service: the frontend.
        where: the socket.
    """
    kind = _KINDS.get(service.type, service.type)
    walk.hop(
        *where,
        f"{service.title} is not translated: Cilium's socket load-balancer leaves {kind} alone that"
        f" is no address of {where[2]}'s",
        State.DERIVED,
        packet,
        service.evidence,
        short=f"{service.owner_title}, not at connect(): sockets leave {kind} alone",
    )


def name_cause(walk: PathBuilder) -> None:
    """Name an untranslated frontend as the cause of what becomes of the packet.

    Args:
        walk: has ended.
    """
    service, end = walk.ends.service, walk.end
    if service is None or not service.passed_over:
        return
    balanced = [hop for hop in walk.hops if hop.kind is HopKind.LOAD_BALANCING]
    if len(balanced) != 1 or balanced[0].place is not HopPlace.POD:
        return  # a program on the way balanced it
    hop, fix = balanced[0], _ask_inside(service)
    if isinstance(end, Dropped):
        own = f"Service {service.namespace}/{service.name}"
        walk.end = replace(
            end, cause=f"{hop.summary}; {end.cause}", fix=fix, drop=replace(end.drop, object=own)
        )
    elif isinstance(end, Arrived) and end.destination is Destination.OUTSIDE:
        walk.finding(Severity.WARNING, hop.summary, fix.text, hop.evidence)


def _ask_inside(service: ServiceAddress) -> Fix:
    owner = service.owner
    inside = owner.cluster_addresses[0] if owner is not None and owner.cluster_addresses else None
    address = f" {inside}" if inside else ""
    return Fix(
        f"Inside of the cluster use the Service's ClusterIP{address}: external IPs are for clients "
        "outside, and for pods whose node balances packet by packet."
    )
