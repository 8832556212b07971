"""The entry of a next hop in a table of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.kernel import Neighbour
from kubectl_ebpfnet.model.net import Address

_FAILED = frozenset({"FAILED", "INCOMPLETE"})


def neighbour_of(
    neighbours: Sequence[Neighbour], device: str, address: Address
) -> Neighbour | None:
    """Return the neighbour entry for an address on a device, or None.

    Args:
        neighbours: the table.
        device: name of the device.
        address: of the neighbour.
    """
    hits = (n for n in neighbours if n.address == address and n.device in (device, ""))
    return next(hits, None)


def unresolved(neighbour: Neighbour) -> bool:
    """Tell whether the kernel asked for the neighbour's MAC and got no answer."""
    return bool(_FAILED & set(neighbour.states)) and not neighbour.mac
