"""rtnetlink's tables of a network namespace, for the questions in node/server/registry.py.

The facts equal the ones of parse/iproute from `ip -j`, so `explain` treats both alike. Links are in
links.py, routes and look-ups in routes.py.

Sources: Linux include/uapi/linux/{if_addr,fib_rules,neighbour}.h; iproute2's ip/ipaddress.c,
iprule.c and ipneigh.c for names and for hidden entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kubectl_ebpfnet.model.kernel import InterfaceAddress, Neighbour, Rule
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.dump import (
    GETADDR,
    GETNEIGH,
    GETRULE,
    INET,
    INET6,
    Message,
    address,
    device,
    device_names,
    dump,
    names,
    network,
    type_name,
)
from kubectl_ebpfnet.node.netlink.links import BY_IP, hardware_address, hardware_types, links
from kubectl_ebpfnet.node.netlink.message import Attributes, number, text
from kubectl_ebpfnet.node.netlink.routes import fib, routes

__all__ = ["addresses", "fib", "links", "neighbours", "routes", "rules"]

# --- addresses: struct ifaddrmsg: family, prefixlen, flags, scope, index; IFA_* ------------------
_ADDRESS_HEAD = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def addresses(request: NodeRequest) -> list[InterfaceAddress]:  # noqa: ARG001
    """Return the addresses of every device, IPv4 before IPv6, in the order of the devices.

    Raises:
        KernelError: the kernel refused.
    """
    scopes, devices = names("rt_scopes"), device_names()
    found: dict[int, list[InterfaceAddress]] = {index: [] for index in devices}
    for message in dump(GETADDR, _ADDRESS_HEAD.pack(0, 0, 0, 0, 0), what="addresses"):
        family, length, _, scope, index = _ADDRESS_HEAD.unpack(message.head)
        # On a point-to-point link IFA_ADDRESS is the peer's address, and IFA_LOCAL the own.
        local = message.attributes.get(_IFA_LOCAL) or message.attributes.get(_IFA_ADDRESS)
        if family in (INET, INET6) and local:
            name = scopes.get(scope, str(scope))
            found.setdefault(index, []).append(
                InterfaceAddress(device(devices, index), address(local), length, name)
            )
    return [entry for device_addresses in found.values() for entry in device_addresses]


# --- rules: struct fib_rule_hdr: family, dst_len, src_len, tos, table, 2 reserved, action, flags --
_RULE_HEAD = struct.Struct("=BBBBBxxBI")
# FRA_*
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY = 1, 2, 3, 4, 6
_FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_L3MDEV = 10, 15, 16, 17, 19
_FRA_SUPPRESS = {13: "suppress_ifgroup", 14: "suppress_prefixlength"}
_FRA_SELECTORS = {
    12: "tun_id", 20: "uidrange", 22: "ipproto", 23: "sport", 24: "dport", 25: "dscp",
    26: "flowlabel",
}  # fmt: skip
# Attributes that are read, or that do not select: the rule's origin (protocol), realms, padding,
# and masks of selectors.
_FRA_KNOWN = frozenset(
    {*range(7), 10, 11, 15, 16, 17, 18, 19, 21, 27, 28, 29, 30, *_FRA_SUPPRESS, *_FRA_SELECTORS}
)
_INVERT, _NO_SUPPRESSION, _ALL_BITS = 0x2, 0xFFFFFFFF, 0xFFFFFFFF
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop"}  # FR_ACT_*; the others are named as route types


def rules(request: NodeRequest) -> Iterator[Rule]:  # noqa: ARG001
    """Yield the routing policy database, IPv4 then IPv6, each with the lowest priority first.

    An unknown selector is `attribute N` in `other_selectors`, so that the rule does not seem to
    select more. Raises KernelError.
    """
    tables = names("rt_tables")
    for family in (INET, INET6):
        head = _RULE_HEAD.pack(family, 0, 0, 0, 0, 0, 0)
        for message in dump(GETRULE, head, what="rules"):
            if message.head[0] == family:
                yield _rule(message, tables)


def _rule(message: Message, tables: dict[int, str]) -> Rule:
    family, length, source_length, tos, table, kind, flags = _RULE_HEAD.unpack(message.head)
    attributes = message.attributes
    table = number(attributes, _FRA_TABLE) or table
    action = _ACTIONS.get(kind) or type_name(kind)
    if number(attributes, _FRA_L3MDEV):
        action = "l3mdev"
    mark, mask = number(attributes, _FRA_FWMARK), number(attributes, _FRA_FWMASK)
    source, destination = attributes.get(_FRA_SRC), attributes.get(_FRA_DST)
    return Rule(
        priority=number(attributes, _FRA_PRIORITY) or 0,
        table=tables.get(table, str(table)) if action == "lookup" and table else "",
        source=network(source, source_length, family) if source else None,
        destination=network(destination, length, family) if destination else None,
        mark=None if mark is None and mask is None else mark or 0,
        mark_mask=_ALL_BITS if mask is None else mask,
        in_device=text(attributes, _FRA_IIFNAME),
        out_device=text(attributes, _FRA_OIFNAME),
        action=action,
        inverted=bool(flags & _INVERT),
        other_selectors=tuple(sorted(_unevaluated_selectors(attributes, tos, table))),
        goto=number(attributes, _FRA_GOTO) if action == "goto" else None,
        version=4 if family == INET else 6,
    )


def _unevaluated_selectors(attributes: Attributes, tos: int, table: int) -> Iterator[str]:
    """Yield the names of selectors, of a rule or its look-up, that are not evaluated."""
    if tos:
        yield "tos"
    for kind in attributes:
        if kind in _FRA_SELECTORS:
            yield _FRA_SELECTORS[kind]
        elif kind in _FRA_SUPPRESS:
            if table and number(attributes, kind) != _NO_SUPPRESSION:
                yield _FRA_SUPPRESS[kind]
        elif kind not in _FRA_KNOWN:
            yield f"attribute {kind}"


# --- neighbours: struct ndmsg: family, ifindex, state, flags, type; NDA_* ------------------------
_NEIGHBOUR_HEAD = struct.Struct("=BxxxiHBB")
_NDA_DST, _NDA_LLADDR = 1, 2
_PROXY, _EXTERN_LEARNED = 0x08, 0x10  # NTF_*
_NOARP = 0x40
_STATES = {
    0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY", 0x10: "PROBE",
    0x20: "FAILED", _NOARP: "NOARP", 0x80: "PERMANENT",
}  # fmt: skip


def neighbours(request: NodeRequest) -> Iterator[Neighbour]:  # noqa: ARG001
    """Yield the neighbour tables of both families, without proxies.

    Entries that are only NOARP (multicast, loopback) or have no state yet are hidden, as `ip neigh`
    does, unless a control plane made them (extern_learn). Raises KernelError.
    """
    devices = device_names()
    messages = dump(GETNEIGH, _NEIGHBOUR_HEAD.pack(0, 0, 0, 0, 0), what="neighbours")
    # Only devices of IP tunnels need their hardware type.
    ambiguous = any(len(m.attributes.get(_NDA_LLADDR, b"")) in BY_IP for m in messages)
    hardware = hardware_types() if ambiguous else {}
    for message in messages:
        family, index, state, flags, _ = _NEIGHBOUR_HEAD.unpack(message.head)
        hidden = not state & ~_NOARP and not flags & _EXTERN_LEARNED
        host = message.attributes.get(_NDA_DST)
        if hidden or flags & _PROXY or family not in (INET, INET6) or not host:
            continue
        mac = message.attributes.get(_NDA_LLADDR, b"")
        yield Neighbour(
            address=address(host),
            device=device(devices, index),
            mac=hardware_address(mac, hardware.get(index, 0)),
            states=_states(state),
        )


def _states(state: int) -> tuple[str, ...]:
    return tuple(name for bit, name in _STATES.items() if state & bit) or ("NONE",)
