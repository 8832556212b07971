"""The source address of what a node's own namespace sends: its route's `src`, where it has one.

A socket that is not bound gets its address with the route of its destination
(Linux net/ipv4/route.c, ip_route_output_key_hash_rcu: FIB_RES_PREFSRC), after Cilium's program at
connect() has replaced a Service's address. To pods that is cilium_host's address: Cilium gives its
routes to the pod CIDRs this `src` (pkg/datapath/linux/node.go).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, own_packet
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import Address, Flow


def own_source(node: NodeView, flow: Flow, ends: Iterable[Address]) -> Address:
    """Return the address that a hostNetwork pod sends from.

    Args:
        node: the pod's.
        flow: the packet, with the pod's address.
        ends: where the socket connects to: of a Service, its backends.

    Returns:
        The pod's address where the routes do not name another one, or not one for all the ends.
    """
    tables = node_tables(node, flow.source.version)
    if isinstance(tables, str):
        return flow.source
    unbound = replace(flow, source=type(flow.source)(0))
    chosen = set()
    for end in ends:
        decision = routing.decide(tables, own_packet(replace(unbound, destination=end)))
        route = decision.route
        certain = route is not None and not decision.undecided and not decision.local
        chosen.add(route.preferred_source if route is not None and certain else None)
    address = chosen.pop() if len(chosen) == 1 else None
    return address if address in node.own_addresses else flow.source
