"""BPF filters of clsact and ingress qdiscs, one RTM_GETTFILTER dump a device and direction.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink import message

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_GETQDISC, _GETTFILTER = 38, 46  # RTM_*
_KIND, _OPTIONS, _CHAIN = 1, 2, 11  # TCA_*
_BPF_NAME, _BPF_FLAGS, _BPF_TAG, _BPF_ID = 7, 8, 10, 11  # TCA_BPF_*
_HEAD = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_QDISCS = {b"clsact\0": ("ingress", "egress"), b"ingress\0": ("ingress",)}
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
        for type_, at, stop in message.attributes(data, start + _HEAD.size, end):
            if type_ == _KIND and data[at:stop] in _QDISCS:
                found[index] = _QDISCS[data[at:stop]]
    return found


def _filter(data: bytes, start: int, end: int) -> BpfFilter | None:
    """Return a BPF filter; None for other kinds, and for the row of a preference."""
    _, _, handle, _, info = _HEAD.unpack_from(data, start)
    attributes = {
        kind: data[at:stop] for kind, at, stop in message.attributes(data, start + _HEAD.size, end)
    }
    options = attributes.get(_OPTIONS, b"")
    if attributes.get(_KIND) != b"bpf\0" or not options or not handle:
        return None
    bpf = {
        kind: options[at:stop] for kind, at, stop in message.attributes(options, 0, len(options))
    }
    return BpfFilter(
        preference=info >> 16,
        chain=_number(attributes.get(_CHAIN, b"")),
        program=_number(bpf.get(_BPF_ID, b"")),
        tag=bpf.get(_BPF_TAG, b"").hex(),
        name=bpf.get(_BPF_NAME, b"").split(b"\0", 1)[0].decode("utf-8", "replace"),
        direct_action=bool(_number(bpf.get(_BPF_FLAGS, b"")) & _DIRECT_ACTION),
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
