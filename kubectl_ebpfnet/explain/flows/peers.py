"""Which peers of a flow an object is: the addresses of a pod, a node, or a Service.

Flows to a Service go to one of its addresses, or, where the client's socket is load-balanced, to
an endpoint at once: then no table has the Service's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter


def of_addresses(
    addresses: Iterable[Address], port: int | None, protocol: int | None
) -> tuple[FlowFilter, ...]:
    """Return filters for flows to any of these addresses.

    Args:
        addresses: of the peer.
        port: of the peer, None for any.
        protocol: IANA number, None for any; that of ICMP stands for ICMPv6 too.
    """
    return tuple(
        FlowFilter(
            peer=address,
            peer_port=port,
            protocol=ICMPV6 if protocol == ICMP and address.version == 6 else protocol,
        )
        for address in addresses
    )


def of_service(
    service: Service,
    endpoints: Sequence[ServiceEndpoint],
    port: int | str | None,
    protocol: int | None,
) -> tuple[FlowFilter, ...]:
    """Return filters for flows to a Service: to its addresses, and to its endpoints.

    Args:
        service: the Service.
        endpoints: of its slices.
        port: number or name of one of its ports, None for all.
        protocol: IANA number, None for any.

    Raises:
        UsageError: it has no such port, or neither an address nor an endpoint.
    """
    name = f"svc/{service.name}"
    ports = [
        each
        for each in service.ports
        if port in (None, each.port, each.name) and protocol in (None, each.protocol)
    ]
    if not ports and service.ports:
        known = ", ".join(f"{each.port} {each.name}".rstrip() for each in service.ports)
        raise UsageError(f"--to {name}: no such port or protocol", hint=f"its ports: {known}")
    filters = [
        FlowFilter(peer=address, peer_port=each.port, protocol=each.protocol)
        for each in ports
        for address in service.addresses
    ]
    wanted = {(each.name, each.protocol) for each in ports}
    filters += [
        FlowFilter(peer=each.address, peer_port=each.port, protocol=each.protocol)
        for each in endpoints
        if (each.port_name, each.protocol) in wanted
    ]
    if not filters:
        raise UsageError(
            f"--to {name}: it has neither an address nor an endpoint",
            hint="give the address: --to ADDRESS:PORT",
        )
    return tuple(dict.fromkeys(filters))
