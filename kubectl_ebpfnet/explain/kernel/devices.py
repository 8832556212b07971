"""Whether a device takes packets, and which device below it is the cause where it does not.

A device without carrier has no IFF_LOWER_UP (`ip link` shows NO-CARRIER, and LOWERLAYERDOWN where
the device below it is down): the other end of a veth is down, the device that a VLAN is made on is,
or every port of a bond or a bridge is (Linux net/core/link_watch.c, rfc2863_policy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.model.kernel import Link

_DEEPEST = 8
"""Devices above each other that are looked at; a VLAN on a bond on a card is three."""


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
    return _why_down(links, name, _DEEPEST)


def _why_down(links: Sequence[Link], name: str, deep: int) -> Down | None:
    link = next((each for each in links if each.name == name), None)
    if link is None or (link.up and link.lower_up):
        return None
    if not link.up:
        return Down(f"{name} is down", (name,), (link,))
    below = [each.name for each in links if each.master == name and each.name != name]
    if link.peer_name:
        below.append(link.peer_name)
    found = [_why_down(links, each, deep - 1) for each in below] if deep else []
    lower = [each for each in found if each is not None]
    if not lower:
        return Down(f"{name} has no carrier", (name,), (link,))
    return Down(
        f"{name} has no carrier: {', '.join(each.what for each in lower)}",
        tuple(cause for each in lower for cause in each.causes),
        (link, *(shown for each in lower for shown in each.links)),
    )
