"""Devices upon devices: by which others a device sends, and which of them is down.

Below a bond are its slaves, below a bridge its ports, below a VLAN the device that it is made on. A
device without carrier has no IFF_LOWER_UP (`ip link` shows NO-CARRIER, and LOWERLAYERDOWN where
the device below it is down): the other end of a veth is down, the device that a VLAN is made on is,
or every port of a bond or a bridge is (Linux net/core/link_watch.c, rfc2863_policy).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Link

_UPON_ANOTHER = ("vlan", "macvlan", "ipvlan", "macsec")
_GUESTS = ("veth", "netkit", "tun")
"""Ports of a bridge that lead to pods and virtual machines, not to the network."""
_DEEPEST = 8
"""Devices above each other that are looked at; a VLAN on a bond on a card is three."""


def lower_devices(node: NodeView, device: str) -> tuple[str, ...]:
    """Return the devices by which what leaves by a device goes on, and what comes in by it came."""
    found: dict[str, None] = {}
    waiting = [device]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += reversed(_directly_below(node, name))
    return tuple(found)[1:]


def _directly_below(node: NodeView, device: str) -> list[str]:
    link = node.link(device)
    if link is None:
        return []
    lower = [one.name for one in node.having(q.LINKS, device, "master") if one.kind not in _GUESTS]
    if link.kind in _UPON_ANOTHER and link.netns_id is None and not link.netns_name:
        lower.append(link.peer_name or node.link_name(link.peer_index))
    return [name for name in lower if name]


def vrf_of(node: NodeView, device: str) -> Link | None:
    """Return the VRF that a device is, or belongs to (Linux drivers/net/vrf.c); None without one,
    and where links were not read."""
    link = node.link(device)
    if link is not None and link.kind != "vrf":
        link = node.link(link.master) if link.master else None
    return link if link is not None and link.kind == "vrf" else None


@dataclass(frozen=True, slots=True)
class Down:
    """A device that takes no packets.

    Attributes:
        what: one line: `eth0.7 has no carrier: eth0 is down`.
        causes: the devices that are to be mended, itself where none below it is the cause.
        links: the devices that show it, from the one that was looked at downwards.
    """

    what: str
    causes: tuple[str, ...]
    links: tuple[Link, ...]


def why_down(links: Sequence[Link], name: str) -> Down | None:
    """Return why a device takes no packets; None where it does, or where it was not read.

    Args:
        links: of its namespace.
        name: of the device.
    """
    return _why_down(links, name, _DEEPEST, set())


def _why_down(links: Sequence[Link], name: str, deep: int, seen: set[str]) -> Down | None:
    """Look at a device that was not `seen`, and at what is below it: a capture may name devices in
    a circle."""
    seen.add(name)
    link = next((each for each in links if each.name == name), None)
    if link is None or (link.up and link.lower_up):
        return None
    if not link.up:
        return Down(f"{name} is down", (name,), (link,))
    below = [each.name for each in links if each.master == name]
    if link.peer_name:
        below.append(link.peer_name)
    lower = [
        down
        for each in below
        if deep and each not in seen and (down := _why_down(links, each, deep - 1, seen))
    ]
    if not lower:
        return Down(f"{name} has no carrier", (name,), (link,))
    return Down(
        f"{name} has no carrier: {', '.join(each.what for each in lower)}",
        tuple(cause for each in lower for cause in each.causes),
        (link, *(shown for each in lower for shown in each.links)),
    )
