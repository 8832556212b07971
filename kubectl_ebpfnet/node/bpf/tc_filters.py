"""Filters of clsact and ingress qdiscs, one RTM_GETTFILTER dump a device and direction.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETQDISC, RTM_GETTFILTER

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, text

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_QDISCS = {"clsact": ("ingress", "egress"), "ingress": ("ingress",)}
_DIRECT_ACTION = 1  # TCA_BPF_FLAG_ACT_DIRECT
_PROTOCOLS = {0x0003: "", 0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6"}
"""tc's names of EtherTypes (iproute2 lib/ll_proto.c), "" for all of them."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter, or all of a preference that run no BPF program.

    Attributes:
        kind: `bpf`, `u32`, `flower`, …
        preference: tc's `pref`: lower ones run first.
        chain: 0 except for filters that only a `goto chain` reaches.
        program: id, 0 for classic BPF.
        tag: of the program, "" for classic BPF.
        name: of the filter, e.g. `bpf_lxc.o:[from-container]`.
        direct_action: the program's return code is the verdict.
        protocol: as tc names it, "" for all.
    """

    kind: str
    preference: int
    chain: int
    program: int = 0
    tag: str = ""
    name: str = ""
    direct_action: bool = False
    protocol: str = ""


class Filters:
    """The filters of this network namespace's devices.

    A filter dump is of one device and direction, so only devices with a qdisc for it are dumped.
    """

    def __init__(self) -> None:
        """List the qdiscs. Raises KernelError."""
        self._directions = _directions()

    def of(self, index: int, direction: str) -> list[Filter]:
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
        there = dict.fromkeys(one for one in found if one is not None)
        return sorted(there, key=lambda one: (one.chain, one.preference))


def _directions() -> dict[int, tuple[str, ...]]:
    """Return the directions of each device, by ifindex, that have a qdisc for filters."""
    found = {}
    for qdisc in dump(RTM_GETQDISC, "list qdiscs"):
        kind = qdisc.get_attr("TCA_KIND")
        if kind in _QDISCS:
            found[qdisc["index"]] = _QDISCS[kind]
    return found


def _filter(message: Any) -> Filter | None:
    """Return a filter; of a kind other than bpf one that stands for all of its preference, and None
    for the row of a preference of bpf."""
    kind = message.get_attr("TCA_KIND") or ""
    protocol = socket.ntohs(message["info"] & 0xFFFF)
    there = Filter(
        kind,
        preference=message["info"] >> 16,
        chain=message.get_attr("TCA_CHAIN") or 0,
        protocol=_PROTOCOLS.get(protocol, f"{protocol:#06x}"),
    )
    options = message.get_attr("TCA_OPTIONS")
    if kind != "bpf":
        return there if kind else None
    if not options or not message["handle"]:
        return None
    return replace(
        there,
        program=options.get_attr("TCA_BPF_ID") or 0,
        tag=(options.get_attr("TCA_BPF_TAG") or "").replace(":", ""),
        name=text(options.get_attr("TCA_BPF_NAME")),
        direct_action=bool((options.get_attr("TCA_BPF_FLAGS") or 0) & _DIRECT_ACTION),
    )
