"""BPF filters of clsact and ingress qdiscs, by pyroute2.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Any

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node import nlmsg, tc_ids

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_GETQDISC, _KIND = 38, 1  # RTM_GETQDISC, TCA_KIND
_HEADER_BYTES = 20  # struct tcmsg
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
    """The filters of this network namespace's devices, over one socket.

    A dump a device is slow, so that only those are asked that have a qdisc for filters. Where
    there is none (Cilium with tcx), pyroute2 is not even imported.
    """

    def __init__(self) -> None:
        """Lists the qdiscs. Raises KernelError."""
        self._directions = _directions()
        self._netlink: Any = None

    def __enter__(self) -> Filters:
        return self

    def __exit__(self, *_: object) -> None:
        if self._netlink is not None:
            self._netlink.close()

    def of(self, index: int, direction: str) -> list[BpfFilter]:
        """A device's filters in the order in which they run.

        Args:
            index: ifindex.
            direction: `ingress` or `egress`.

        Raises:
            KernelError: the kernel refuses.
            Unsupported: this pyroute2 cannot say a filter's program.
        """
        if direction not in self._directions.get(index, ()):
            return []
        found = (_filter(message) for message in self._asked(index, _PARENTS[direction]))
        # Of equal preference they run as the kernel lists them.
        return sorted(
            (one for one in found if one is not None), key=lambda one: (one.chain, one.preference)
        )

    def _asked(self, index: int, parent: int) -> list[Any]:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            if self._netlink is None:
                tc_ids.teach()
                self._netlink = IPRoute()
            return list(self._netlink.get_filters(index=index, parent=parent))
        except NetlinkError as error:
            if error.code in (errno.ENODEV, errno.EINVAL):  # device or qdisc has gone meanwhile
                return []
            raise KernelError(f"list tc filters: {error.args[1]}", error.code) from None
        except OSError as error:
            raise KernelError(f"list tc filters: {error.strerror}", error.errno or 0) from None


def _directions() -> dict[int, tuple[str, ...]]:
    """Which directions of a device, by ifindex, have a qdisc for filters."""
    found = {}
    answers = nlmsg.answers(
        nlmsg.NETLINK_ROUTE, _GETQDISC, nlmsg.DUMP, bytes(_HEADER_BYTES), "list qdiscs"
    )
    for data, start, end in answers:
        (index,) = struct.unpack_from("=i", data, start + 4)
        for type_, at, to in nlmsg.attributes(data, start + _HEADER_BYTES, end):
            if type_ == _KIND and data[at:to] in _QDISCS:
                found[index] = _QDISCS[data[at:to]]
    return found


def _filter(message: Any) -> BpfFilter | None:
    """None for other kinds of filters, and for the line that only says a preference is in use."""
    options = message.get_attr("TCA_OPTIONS")
    if message.get_attr("TCA_KIND") != "bpf" or not options or not message["handle"]:
        return None
    tag = options.get_attr("TCA_BPF_TAG")
    return BpfFilter(
        preference=message["info"] >> 16,
        chain=message.get_attr("TCA_CHAIN") or 0,
        program=options.get_attr("TCA_BPF_ID") or 0,
        tag=bytes(tag).hex() if tag else "",
        name=options.get_attr("TCA_BPF_NAME") or "",
        direct_action=bool((options.get_attr("TCA_BPF_FLAGS") or 0) & _DIRECT_ACTION),
    )
