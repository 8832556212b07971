"""rtnetlink's tables of a network namespace, for the questions in node/server/registry.py.

The facts equal the ones of parse/iproute from `ip -j`, so `explain` treats both alike. Links are in
links.py, routes and look-ups in routes.py.

Sources: Linux include/uapi/linux/{if_addr,fib_rules,neighbour}.h; iproute2's ip/ipaddress.c,
iprule.c and ipneigh.c for names and for hidden entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETNEIGH, RTM_GETRULE

from kubectl_ebpfnet.model.kernel import InterfaceAddress, Neighbour, Rule
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.links import links, mac
from kubectl_ebpfnet.node.netlink.names import device, device_names, names, type_name
from kubectl_ebpfnet.node.netlink.routes import INET, INET6, fib, network, routes
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, text

__all__ = ["addresses", "fib", "links", "neighbours", "routes", "rules"]

_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: an attribute's type without its two flags
_INVERT, _NO_SUPPRESSION, _ALL_BITS = 0x2, 0xFFFFFFFF, 0xFFFFFFFF
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop"}  # FR_ACT_*; the others are named as route types
_SELECTORS = {"FRA_DSCP": "dscp", "FRA_FLOWLABEL": "flowlabel"}  # not evaluated
_MASKS = {"FRA_SPORT_MASK": "sport", "FRA_DPORT_MASK": "dport"}
_WHOLE_PORT = "ffff"
_PROXY, _EXTERN_LEARNED = 0x08, 0x10  # NTF_*
_NOARP = 0x40
_STATES = {
    0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY", 0x10: "PROBE",
    0x20: "FAILED", _NOARP: "NOARP", 0x80: "PERMANENT",
}  # fmt: skip


def addresses(request: NodeRequest) -> list[InterfaceAddress]:  # noqa: ARG001
    """Return the addresses of every device, IPv4 before IPv6, in the order of the devices.

    Raises:
        KernelError: the kernel refused.
    """
    scopes, devices = names("rt_scopes"), device_names()
    found: dict[int, list[InterfaceAddress]] = {index: [] for index in devices}
    for message in dump(RTM_GETADDR, "list addresses"):
        # On a point-to-point link IFA_ADDRESS is the peer's address, and IFA_LOCAL the own.
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["family"] in (INET, INET6) and local:
            index, scope = message["index"], message["scope"]
            found.setdefault(index, []).append(
                InterfaceAddress(
                    device(devices, index),
                    ip_address(local),
                    message["prefixlen"],
                    scopes.get(scope, str(scope)),
                )
            )
    return [entry for device_addresses in found.values() for entry in device_addresses]


def rules(request: NodeRequest) -> Iterator[Rule]:  # noqa: ARG001
    """Yield the routing policy database, IPv4 then IPv6, each with the lowest priority first.

    An unknown selector is `attribute N` in `other_selectors`, so that the rule does not seem to
    select more. Raises KernelError.
    """
    tables = names("rt_tables")
    for family in (INET, INET6):
        for message in dump(RTM_GETRULE, "list rules", family=family):
            if message["family"] == family:
                yield _rule(message, tables)


def _rule(message: Any, tables: dict[int, str]) -> Rule:
    family, get = message["family"], message.get_attr
    table = get("FRA_TABLE") or message["table"]
    action = _ACTIONS.get(message["action"]) or type_name(message["action"])
    if get("FRA_L3MDEV"):
        action = "l3mdev"
    mark, mask = get("FRA_FWMARK"), get("FRA_FWMASK")
    source, destination = get("FRA_SRC"), get("FRA_DST")
    return Rule(
        priority=get("FRA_PRIORITY") or 0,
        table=tables.get(table, str(table)) if action == "lookup" and table else "",
        source=network(source, message["src_len"], family) if source else None,
        destination=network(destination, message["dst_len"], family) if destination else None,
        mark=None if mark is None and mask is None else mark or 0,
        mark_mask=_ALL_BITS if mask is None else mask,
        in_device=text(get("FRA_IIFNAME")),
        out_device=text(get("FRA_OIFNAME")),
        action=action,
        inverted=bool(message["flags"] & _INVERT),
        protocol=get("FRA_IP_PROTO") or None,
        source_ports=_range(get("FRA_SPORT_RANGE")),
        destination_ports=_range(get("FRA_DPORT_RANGE")),
        users=_range(get("FRA_UID_RANGE")),
        tos=f"0x{message['tos']:02x}" if message["tos"] else "",
        tunnel_id=get("FRA_TUN_ID"),
        suppress_prefix=_suppressed(get("FRA_SUPPRESS_PREFIXLEN")) if table else None,
        suppress_group=_group(get("FRA_SUPPRESS_IFGROUP")) if table else "",
        other_selectors=tuple(sorted(_unevaluated_selectors(message))),
        goto=get("FRA_GOTO") if action == "goto" else None,
        version=4 if family == INET else 6,
    )


def _range(bounds: str | None) -> tuple[int, ...]:
    """Return pyroute2's `80:90` as numbers."""
    return tuple(map(int, bounds.split(":"))) if bounds else ()


def _suppressed(value: int | None) -> int | None:
    return None if value == _NO_SUPPRESSION else value


def _group(value: int | None) -> str:
    return "" if value in (None, _NO_SUPPRESSION) else names("group").get(value, str(value))


def _unevaluated_selectors(message: Any) -> Iterator[str]:
    """Yield the names of selectors that are not evaluated.

    The other attributes that pyroute2 knows are read, or do not select: the rule's origin
    (protocol), realms, padding.
    """
    for attribute in message["attrs"]:
        if attribute.name in _SELECTORS:
            yield _SELECTORS[attribute.name]
        elif attribute.name in _MASKS and attribute.value.replace(":", "") != _WHOLE_PORT:
            yield f"{_MASKS[attribute.name]}_mask"
        elif attribute.name == "UNKNOWN":
            yield f"attribute {attribute.nla['header']['type'] & _TYPE_MASK}"


def neighbours(request: NodeRequest) -> Iterator[Neighbour]:  # noqa: ARG001
    """Yield the neighbour tables of both families, without proxies.

    Entries that are only NOARP (multicast, loopback) or have no state yet are hidden, as `ip neigh`
    does, unless a control plane made them (extern_learn). Raises KernelError.
    """
    devices = device_names()
    for message in dump(RTM_GETNEIGH, "list neighbours"):
        state, flags, host = message["state"], message["flags"], message.get_attr("NDA_DST")
        hidden = not state & ~_NOARP and not flags & _EXTERN_LEARNED
        if hidden or flags & _PROXY or message["family"] not in (INET, INET6) or not host:
            continue
        yield Neighbour(
            address=ip_address(host),
            device=device(devices, message["ifindex"]),
            mac=mac(message.get_attr("NDA_LLADDR")),
            states=tuple(name for bit, name in _STATES.items() if state & bit) or ("NONE",),
        )
