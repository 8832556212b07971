"""Which of a device's addresses a masqueraded packet gets.

Sources: Cilium pkg/datapath/tables/node_address.go (SortedAddresses, getAddressesFromDevice: the
address that is marked primary), pkg/ip (IsPublicAddr); Linux net/netfilter/nf_nat_masquerade.c,
net/ipv4/devinet.c (inet_select_addr, __inet_insert_ifa).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, ip_network

from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import InterfaceAddress
from kubectl_ebpfnet.model.net import Address, Network


def of_cilium(
    node: NodeView, device: str, version: int, node_addresses: Collection[Address] | None
) -> tuple[Address, ...]:
    """Return the addresses that Cilium may masquerade with at a device.

    Versions differ: at first the first address of a sorted list was taken; then the node's own
    before any public one; since 1.19 a public one comes first again, and the node's own before
    others of its kind.

    Args:
        node: of the device.
        device: by which the packet leaves.
        version: 4 or 6.
        node_addresses: InternalIPs of the Node object, None where it was not read.

    Returns:
        One address where every version takes the same one; () where the device has none.
    """
    facts = _global(node, device, version)
    later = _secondary(facts)
    order = sorted(
        facts,
        key=lambda fact: (fact in later, not fact.address.is_global, int(fact.address)),
    )
    addresses = [fact.address for fact in order]
    if node_addresses is None:
        return tuple(addresses)
    own = [one for one in addresses if one in node_addresses]
    public = [one for one in addresses if one.is_global]
    same_kind = [one for one in own if one.is_global == bool(public)]
    taken = (addresses, own or public or addresses, same_kind or public or addresses)
    return tuple(dict.fromkeys(one[0] for one in taken if one))


def of_netfilter(node: NodeView, device: str, next_hop: Address) -> tuple[Address, ...]:
    """Return the addresses that MASQUERADE may give a packet.

    Of IPv4 that is the first primary address in the next hop's network, else the first one; a
    device without an address, as a pod's, lends the first of another device: mostly that of the
    lowest index, which stands first here. Of IPv6 the rules of RFC 6724 choose, for which the
    addresses' states were not read.

    Args:
        node: of the device.
        device: by which the packet leaves.
        next_hop: the route's gateway, or the destination where it is on the link.
    """
    facts = _global(node, device, next_hop.version)
    if not facts and next_hop.version == 4 and node[q.ADDRESSES].known:
        index = {link.name: link.index for link in node[q.LINKS].facts}
        named = {fact.device for fact in node[q.ADDRESSES].facts}
        devices = sorted(named, key=lambda name: (index.get(name, 1 << 32), name))
        lent = [of[0].address for of in (_global(node, each, 4) for each in devices) if of]
        return tuple(dict.fromkeys(lent))
    if next_hop.version == 6:
        return tuple(fact.address for fact in facts)
    primary = [fact for fact in facts if fact not in _secondary(facts)]
    near = [fact for fact in primary if next_hop in _network(fact)]
    return tuple(fact.address for fact in (near or primary)[:1])


def _global(node: NodeView, device: str, version: int) -> list[InterfaceAddress]:
    wanted = node.addresses_of(device, version)
    facts = node[q.ADDRESSES].facts
    return [fact for fact in facts if fact.device == device and fact.address in wanted]


def _secondary(facts: Sequence[InterfaceAddress]) -> list[InterfaceAddress]:
    """Return the IPv4 addresses that came to a device after another one of the same network; the
    kernel lists them in this order. IPv6 has none."""
    return [
        fact
        for number, fact in enumerate(facts)
        if isinstance(_network(fact), IPv4Network)
        and _network(fact) in [_network(other) for other in facts[:number]]
    ]


def _network(fact: InterfaceAddress) -> Network:
    return ip_network((fact.address, fact.prefix_length), strict=False)
