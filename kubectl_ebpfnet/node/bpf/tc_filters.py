"""BPF filters of clsact and ingress qdiscs, one RTM_GETTFILTER dump a device and direction.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETQDISC, RTM_GETTFILTER

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, text

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
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
        try:
            messages = dump(
                RTM_GETTFILTER, "list tc filters", index=index, parent=_PARENTS[direction]
            )
        except KernelError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):  # device or qdisc has gone meanwhile
                return []
            raise
        found = map(_filter, messages)
        # Filters of equal preference run in the kernel's order.
        return sorted(
            (bpf_filter for bpf_filter in found if bpf_filter is not None),
            key=lambda bpf_filter: (bpf_filter.chain, bpf_filter.preference),
        )


def _directions() -> dict[int, tuple[str, ...]]:
    """Return the directions of each device, by ifindex, that have a qdisc for filters."""
    found = {}
    for qdisc in dump(RTM_GETQDISC, "list qdiscs"):
        kind = qdisc.get_attr("TCA_KIND")
        if kind in _QDISCS:
            found[qdisc["index"]] = _QDISCS[kind]
    return found


def _filter(message: Any) -> BpfFilter | None:
    """Return a BPF filter; None for other kinds, and for the row of a preference."""
    options = message.get_attr("TCA_OPTIONS")
    if message.get_attr("TCA_KIND") != "bpf" or not options or not message["handle"]:
        return None
    return BpfFilter(
        preference=message["info"] >> 16,
        chain=message.get_attr("TCA_CHAIN") or 0,
        program=options.get_attr("TCA_BPF_ID") or 0,
        tag=(options.get_attr("TCA_BPF_TAG") or "").replace(":", ""),
        name=text(options.get_attr("TCA_BPF_NAME")),
        direct_action=bool((options.get_attr("TCA_BPF_FLAGS") or 0) & _DIRECT_ACTION),
    )
