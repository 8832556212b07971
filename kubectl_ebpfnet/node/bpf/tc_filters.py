"""BPF filters of clsact and ingress qdiscs, one RTM_GETTFILTER dump a device and direction.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink import message

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_GETQDISC, _GETTFILTER = 38, 46  # RTM_*
_KIND, _OPTIONS, _CHAIN = 1, 2, 11  # TCA_*
_BPF_NAME, _BPF_FLAGS, _BPF_TAG, _BPF_ID = 7, 8, 10, 11  # TCA_BPF_*
_HEAD = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_QDISCS = {"clsact": ("ingress", "egress"), "ingress": ("ingress",)}
_DIRECT_ACTION = 1  # TCA_BPF_FLAG_ACT_DIRECT


@dataclass(frozen=True, slots=True)
class BpfFilter:
    """A filter that runs a BPF program.

    Attributes:
        preference: tc's `pref`: lower ones run first.
        chain: 0 except for filters that only a `goto chain` reaches.
        program: id, 0 for classic BPF.
        tag: of the program, "" for classic BPF.
        name: of the filter, e.g. `bpf_lxc.o:[from-container]`.
        direct_action: the program's return code is the verdict.
    """

    preference: int
    chain: int
    program: int
    tag: str
    name: str
    direct_action: bool


class Filters:
    """The filters of this network namespace's devices.

    A filter dump is of one device and direction, so only devices with a qdisc for it are dumped.
    """

    def __init__(self) -> None:
        """List the qdiscs. Raises KernelError."""
        self._directions = _directions()

    def of(self, index: int, direction: str) -> list[BpfFilter]:
        """Return a device's filters in the order in which they run.

        Args:
            index: ifindex.
            direction: `ingress` or `egress`.

        Raises:
            KernelError: the kernel refuses.
        """
        if direction not in self._directions.get(index, ()):
            return []
        body = _HEAD.pack(0, index, 0, _PARENTS[direction], 0)
        try:
            answers = message.dump(_GETTFILTER, body, "list tc filters")
        except KernelError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):  # device or qdisc has gone meanwhile
                return []
            raise
        found = [_filter(*answer) for answer in answers]
        # Filters of equal preference run in the kernel's order.
        return sorted(
            (bpf_filter for bpf_filter in found if bpf_filter is not None),
            key=lambda bpf_filter: (bpf_filter.chain, bpf_filter.preference),
        )


def _directions() -> dict[int, tuple[str, ...]]:
    """Return the directions of each device, by ifindex, that have a qdisc for filters."""
    found = {}
    for data, start, end in message.dump(_GETQDISC, bytes(_HEAD.size), "list qdiscs"):
        (index,) = struct.unpack_from("=i", data, start + 4)
        kind = message.text(message.attributes_of(data[start:end], _HEAD.size), _KIND)
        if kind in _QDISCS:
            found[index] = _QDISCS[kind]
    return found


def _filter(data: bytes, start: int, end: int) -> BpfFilter | None:
    """Return a BPF filter; None for other kinds, and for the row of a preference."""
    _, _, handle, _, info = _HEAD.unpack_from(data, start)
    found = message.attributes_of(data[start:end], _HEAD.size)
    options = found.get(_OPTIONS, b"")
    if message.text(found, _KIND) != "bpf" or not options or not handle:
        return None
    bpf = message.attributes_of(options)
    return BpfFilter(
        preference=info >> 16,
        chain=message.number(found, _CHAIN) or 0,
        program=message.number(bpf, _BPF_ID) or 0,
        tag=bpf.get(_BPF_TAG, b"").hex(),
        name=message.text(bpf, _BPF_NAME),
        direct_action=bool((message.number(bpf, _BPF_FLAGS) or 0) & _DIRECT_ACTION),
    )
