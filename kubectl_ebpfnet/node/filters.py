"""BPF filters of clsact and ingress qdiscs, by pyroute2.

Sources: tc-bpf(8), net/sched/cls_bpf.c (cls_bpf_dump), net/sched/cls_api.c (tc_dump_tfilter).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node import tc_ids

_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_QDISCS = {"clsact": ("ingress", "egress"), "ingress": ("ingress",)}
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
    """The filters of this network namespace's devices, over one socket."""

    def __init__(self) -> None:
        """Lists the qdiscs once, since a dump a device is slow and few devices have filters.

        Raises:
            KernelError: the kernel refuses.
            Unsupported: this pyroute2 cannot say a filter's program.
        """
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        tc_ids.teach()
        self._refused = NetlinkError
        self._netlink = IPRoute()
        try:
            self._directions = {
                message["index"]: _QDISCS[kind]
                for message in self._asked(self._netlink.get_qdiscs)
                if (kind := message.get_attr("TCA_KIND")) in _QDISCS
            }
        except BaseException:
            self._netlink.close()
            raise

    def __enter__(self) -> Filters:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

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
        messages = self._asked(self._netlink.get_filters, index=index, parent=_PARENTS[direction])
        found = [one for message in messages if (one := _filter(message)) is not None]
        # Of equal preference they run as the kernel lists them.
        return sorted(found, key=lambda one: (one.chain, one.preference))

    def _asked(self, call: Any, **words: Any) -> list[Any]:
        try:
            return list(call(**words))
        except self._refused as error:
            if error.code in (errno.ENODEV, errno.EINVAL):  # device or qdisc has gone meanwhile
                return []
            raise KernelError(f"list tc filters: {error.args[1]}", error.code) from None
        except OSError as error:
            raise KernelError(f"list tc filters: {error.strerror}", error.errno or 0) from None


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
