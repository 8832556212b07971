"""The devices of a network namespace, equal to the facts of `ip -j -d link`.

Sources: Linux include/uapi/linux/if_link.h and net/core/rtnetlink.c (rtnl_fill_ifinfo); iproute2's
ip/ipaddress.c (print_linkinfo), iplink_vxlan.c, iplink_geneve.c, iplink_xdp.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.dump import GETLINK, Message, device, dump
from kubectl_ebpfnet.node.netlink.message import Attributes, attribute, attributes_of, number, text

_HEAD = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
# IFLA_*
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO = 1, 3, 4, 5, 10, 18
_EXT_MASK, _LINK_NETNSID, _XDP = 29, 37, 43
_INFO_KIND, _INFO_DATA = 1, 2
# (port, collect metadata) among IFLA_VXLAN_* and IFLA_GENEVE_*
_TUNNELS = {"vxlan": (15, 25), "geneve": (5, 6)}
# IFLA_XDP_PROG_ID, then the ids of generic, driver and hardware mode, in iproute2's order.
_XDP_PROGRAMS = (4, 6, 5, 7)
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS
_UP, _LOWER_UP = 0x1, 0x10000
BY_IP = {4: frozenset({768, 776, 778}), 16: frozenset({769, 823})}
"""Devices whose link-layer addresses are IP addresses: ARPHRD_TUNNEL, SIT, IPGRE and
ARPHRD_TUNNEL6, IP6GRE, by the address's length in bytes."""


def links(request: NodeRequest) -> Iterator[Link]:  # noqa: ARG001
    """Yield the devices, in the kernel's order, without their statistics. Raises KernelError."""
    found = [(_HEAD.unpack(message.head), message.attributes) for message in _messages()]
    devices = {head[2]: text(attributes, _IFNAME) for head, attributes in found}
    for (_, hardware, index, flags, _), attributes in found:
        yield _link(index, hardware, flags, attributes, devices)


def hardware_types() -> dict[int, int]:
    """Return ARPHRD_* of every device by its ifindex. Raises KernelError."""
    heads = (_HEAD.unpack(message.head) for message in _messages())
    return {index: hardware for _, hardware, index, _, _ in heads}


def _messages() -> list[Message]:
    mask = attribute(_EXT_MASK, struct.pack("=I", _SKIP_STATS))
    return dump(GETLINK, _HEAD.pack(0, 0, 0, 0, 0), mask, "links")


def _link(
    index: int, hardware: int, flags: int, attributes: Attributes, devices: dict[int, str]
) -> Link:
    info = attributes_of(attributes.get(_LINKINFO, b""))
    kind = text(info, _INFO_KIND)
    port, external = _tunnel(kind, info)
    peer_index, peer_name, netns_id = _peer(attributes, devices)
    master = number(attributes, _MASTER)
    return Link(
        index=index,
        name=text(attributes, _IFNAME),
        kind=kind,
        mac=hardware_address(attributes.get(_ADDRESS, b""), hardware),
        up=bool(flags & _UP),
        lower_up=bool(flags & _LOWER_UP),
        mtu=number(attributes, _MTU),
        peer_index=peer_index,
        peer_name=peer_name,
        netns_id=netns_id,
        master=device(devices, master) if master else "",
        tunnel_port=port,
        tunnel_external=external,
        xdp_program=_xdp(attributes),
    )


def hardware_address(value: bytes, hardware: int) -> str:
    """Return a link-layer address in hexadecimal; "" for none and for the IP addresses of IP
    tunnels.

    Args:
        value: bytes of the address.
        hardware: ARPHRD_* of the device.
    """
    if len(value) < 2 or hardware in BY_IP.get(len(value), ()):
        return ""
    return value.hex(":")


def _peer(attributes: Attributes, devices: dict[int, str]) -> tuple[int | None, str, int | None]:
    """Return the peer's index, name and nsid: the name in this namespace, else the index."""
    index, raw = number(attributes, _LINK), attributes.get(_LINK_NETNSID)
    netns_id = None if raw is None else struct.unpack("=i", raw)[0]
    known = netns_id if netns_id is not None and netns_id >= 0 else None
    if not index:
        return None, "", known
    if raw is not None or index not in devices:
        return index, "", known
    return None, devices[index], known


def _tunnel(kind: str, info: Attributes) -> tuple[int | None, bool]:
    """Return the UDP port, and whether each packet has the tunnel's parameters (external)."""
    if kind not in _TUNNELS:
        return None, False
    data = attributes_of(info.get(_INFO_DATA, b""))
    port, metadata = _TUNNELS[kind]
    value = data.get(port)
    external = data.get(metadata)
    # vxlan's is a byte, geneve's a flag: an attribute without a value
    return (
        None if value is None else int.from_bytes(value, "big"),
        external is not None and external != b"\0",
    )


def _xdp(attributes: Attributes) -> int | None:
    nest = attributes_of(attributes.get(_XDP, b""))
    return next((n for kind in _XDP_PROGRAMS if (n := number(nest, kind)) is not None), None)
