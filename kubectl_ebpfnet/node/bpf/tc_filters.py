"""BPF filters of clsact and ingress qdiscs, one RTM_GETTFILTER dump a device and direction.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink import message as nlmsg

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
        chain: 0 but for filters that only a `goto chain` reaches.
        program: its id, 0 for classic BPF.
        tag: of the program, "" for classic BPF.
        name: that the filter was given, e.g. `bpf_lxc.o:[from-container]`.
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

    A filter dump is of one device and direction, so only those are asked that have a qdisc for it.
    """

    def __init__(self) -> None:
        """Lists the qdiscs. Raises KernelError."""
        self._directions = _directions()

    def of(self, index: int, direction: str) -> list[BpfFilter]:
        """A device's filters in the order in which they run.

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
            answers = nlmsg.dump(_GETTFILTER, body, "list tc filters")
        except KernelError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):  # device or qdisc has gone meanwhile
                return []
            raise
        found = [_filter(*answer) for answer in answers]
        # Of equal preference they run as the kernel lists them.
        return sorted(
            (one for one in found if one is not None), key=lambda one: (one.chain, one.preference)
        )


def _directions() -> dict[int, tuple[str, ...]]:
    """Which directions of a device, by ifindex, have a qdisc for filters."""
    found = {}
    for data, start, end in nlmsg.dump(_GETQDISC, bytes(_HEAD.size), "list qdiscs"):
        (index,) = struct.unpack_from("=i", data, start + 4)
        for type_, at, to in nlmsg.attributes(data, start + _HEAD.size, end):
            if type_ == _KIND and data[at:to] in _QDISCS:
                found[index] = _QDISCS[data[at:to]]
    return found


def _filter(data: bytes, start: int, end: int) -> BpfFilter | None:
    """None for other kinds of filters, and for the line that only says a preference is in use."""
    _, _, handle, _, info = _HEAD.unpack_from(data, start)
    said = {kind: data[at:to] for kind, at, to in nlmsg.attributes(data, start + _HEAD.size, end)}
    options = said.get(_OPTIONS, b"")
    if said.get(_KIND) != b"bpf\0" or not options or not handle:
        return None
    bpf = {kind: options[at:to] for kind, at, to in nlmsg.attributes(options, 0, len(options))}
    return BpfFilter(
        preference=info >> 16,
        chain=_number(said.get(_CHAIN, b"")),
        program=_number(bpf.get(_BPF_ID, b"")),
        tag=bpf.get(_BPF_TAG, b"").hex(),
        name=bpf.get(_BPF_NAME, b"").split(b"\0", 1)[0].decode("utf-8", "replace"),
        direct_action=bool(_number(bpf.get(_BPF_FLAGS, b"")) & _DIRECT_ACTION),
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
