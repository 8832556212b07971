"""The devices of a network namespace, equal to the facts of `ip -j -d link`.

Sources: Linux include/uapi/linux/if_link.h and net/core/rtnetlink.c (rtnl_fill_ifinfo); iproute2's
ip/ipaddress.c (print_linkinfo), iplink_vxlan.c, iplink_geneve.c, iplink_xdp.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETLINK

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.names import device, names
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, text

_TUNNELS = frozenset({"vxlan", "geneve"})
# Ids of generic, driver and hardware mode, in iproute2's order; and in the order of a packet.
# IFLA_XDP_PROG_ID repeats a single one, and is the only attribute before Linux 4.20.
_XDP_LISTED = ("IFLA_XDP_PROG_ID", "IFLA_XDP_SKB_PROG_ID", "IFLA_XDP_DRV_PROG_ID",
               "IFLA_XDP_HW_PROG_ID")  # fmt: skip
_XDP_RUN = ("IFLA_XDP_HW_PROG_ID", "IFLA_XDP_DRV_PROG_ID", "IFLA_XDP_SKB_PROG_ID",
            "IFLA_XDP_PROG_ID")  # fmt: skip
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS
_UP, _NOARP, _LOWER_UP = 0x1, 0x80, 0x10000
_IP_ADDRESS_BYTES = (4, 16)


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device, with the facts that attachments need.

    Attributes:
        index: ifindex.
        name: of the device.
        kind: `veth`, `netkit`, …; "" for hardware and for lo.
        xdp: ids of XDP programs: offloaded, native, generic.
    """

    index: int
    name: str
    kind: str = ""
    xdp: tuple[int, ...] = ()


def links(request: NodeRequest) -> Iterator[Link]:  # noqa: ARG001
    """Yield the devices, in the kernel's order, without their statistics. Raises KernelError."""
    messages = _messages()
    devices = {message["index"]: text(message.get_attr("IFLA_IFNAME")) for message in messages}
    for message in messages:
        yield _link(message, devices)


def devices() -> list[NetDevice]:
    """Return all devices of the calling thread's namespace, in the kernel's order.

    Raises:
        KernelError: the kernel refused.
    """
    return [
        NetDevice(
            message["index"],
            text(message.get_attr("IFLA_IFNAME")),
            _kind(message.get_attr("IFLA_LINKINFO")),
            tuple(dict.fromkeys(_xdp(message, _XDP_RUN))),
        )
        for message in _messages()
    ]


def _messages() -> list[Any]:
    return dump(RTM_GETLINK, "list links", [("IFLA_EXT_MASK", _SKIP_STATS)])


def _link(message: Any, devices: dict[int, str]) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    port, external = _tunnel(info)
    peer_index, peer_name, netns_id = _peer(message, devices)
    master = message.get_attr("IFLA_MASTER")
    return Link(
        index=message["index"],
        name=text(message.get_attr("IFLA_IFNAME")),
        kind=_kind(info),
        mac=mac(message.get_attr("IFLA_ADDRESS")),
        up=bool(message["flags"] & _UP),
        lower_up=bool(message["flags"] & _LOWER_UP),
        arp=not message["flags"] & _NOARP,
        mtu=message.get_attr("IFLA_MTU"),
        peer_index=peer_index,
        peer_name=peer_name,
        netns_id=netns_id,
        master=device(devices, master) if master else "",
        tunnel_port=port,
        tunnel_external=external,
        vrf_table=_vrf_table(info),
        xdp_program=next(_xdp(message, _XDP_LISTED), None),
        qdisc=message.get_attr("IFLA_QDISC") or "",
    )


def mac(address: str | None) -> str:
    """Return a link-layer address in hexadecimal; "" for none and for the IP addresses of IP
    tunnels.

    Args:
        address: hexadecimal bytes with colons.
    """
    return "" if not address or (len(address) + 1) // 3 in _IP_ADDRESS_BYTES else address


def _vrf_table(info: Any) -> str:
    """Return the table of a VRF by iproute2's name for it, "" for other devices."""
    data = info.get_attr("IFLA_INFO_DATA") if _kind(info) == "vrf" else None
    table = data.get_attr("IFLA_VRF_TABLE") if data is not None else None
    return "" if table is None else names("rt_tables").get(table, str(table))


def _kind(info: Any) -> str:
    return text(info.get_attr("IFLA_INFO_KIND")) if info else ""


def _peer(message: Any, devices: dict[int, str]) -> tuple[int | None, str, int | None]:
    """Return the peer's index, name and nsid: the name in this namespace, else the index."""
    index, netns_id = message.get_attr("IFLA_LINK"), message.get_attr("IFLA_LINK_NETNSID")
    known = netns_id if netns_id is not None and netns_id >= 0 else None
    if not index:
        return None, "", known
    if netns_id is not None or index not in devices:
        return index, "", known
    return None, devices[index], known


def _tunnel(info: Any) -> tuple[int | None, bool]:
    """Return the UDP port, and whether each packet has the tunnel's parameters (external)."""
    kind = _kind(info)
    data = info.get_attr("IFLA_INFO_DATA") if kind in _TUNNELS else None
    if not data:
        return None, False
    prefix = f"IFLA_{kind.upper()}"
    external = data.get_attr(f"{prefix}_COLLECT_METADATA")
    return data.get_attr(f"{prefix}_PORT"), bool(external)


def _xdp(message: Any, attributes: tuple[str, ...]) -> Iterator[int]:
    xdp = message.get_attr("IFLA_XDP")
    ids = (xdp.get_attr(name) for name in attributes) if xdp else ()
    return (program for program in ids if program)
