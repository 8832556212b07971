"""The source address of what a node's own namespace sends: its route's `src`, where it has one.

A socket that is not bound gets its address with the route of its destination
(Linux net/ipv4/route.c, ip_route_output_key_hash_rcu: FIB_RES_PREFSRC), after Cilium's program at
connect() has replaced a Service's address. To pods that is cilium_host's address: Cilium gives its
routes to the pod CIDRs this `src` (pkg/datapath/linux/node.go). To an address of its own it is that
address, to 127.0.0.0/8 127.0.0.1 (the local routes' `src`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, own_packet
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import Address, Flow

_LOOPBACK = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


def own_source(node: NodeView, flow: Flow, ends: Iterable[Address]) -> Address:
    """Return the address that a node's process, or a hostNetwork pod, sends from.

    Args:
        node: the sender's.
        flow: the packet, with the node's address.
        ends: where the socket connects to: of a Service, its backends.

    Returns:
        The node's address where the routes do not name another one, or not one for all the ends.
    """
    tables = node_tables(node, flow.source.version)
    if isinstance(tables, str):
        return _LOOPBACK[flow.source.version] if flow.destination.is_loopback else flow.source
    unbound = replace(flow, source=type(flow.source)(0))
    chosen: set[Address | None] = set()
    for end in ends:
        decision = routing.decide(tables, own_packet(replace(unbound, destination=end)))
        route = decision.route
        if route is None or decision.undecided:
            chosen.add(None)
        else:
            chosen.add(route.preferred_source or (end if decision.local else None))
    address = chosen.pop() if len(chosen) == 1 else None
    if address is None or not (address.is_loopback or address in node.own_addresses):
        return flow.source
    return address
