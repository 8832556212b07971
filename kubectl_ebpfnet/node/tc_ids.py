"""Teaches pyroute2 three attributes of a BPF tc filter, TCA_BPF_ID among them.

pyroute2 0.9.7's table of cls_bpf attributes ends at TCA_BPF_FLAGS, so that the kernel's answer to
"which program is it?" decodes as UNKNOWN and its value is lost. This is the one place that adds
them, from outside, until a pyroute2 has them.

Source: include/uapi/linux/pkt_cls.h (TCA_BPF_*).
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import Unsupported

_KNOWN = (
    "TCA_BPF_UNSPEC", "TCA_BPF_ACT", "TCA_BPF_POLICE", "TCA_BPF_CLASSID", "TCA_BPF_OPS_LEN",
    "TCA_BPF_OPS", "TCA_BPF_FD", "TCA_BPF_NAME", "TCA_BPF_FLAGS",
)  # fmt: skip
_ADDED = (("TCA_BPF_FLAGS_GEN", "uint32"), ("TCA_BPF_TAG", "cdata"), ("TCA_BPF_ID", "uint32"))


def teach(options: Any = None) -> None:
    """Make pyroute2 decode TCA_BPF_FLAGS_GEN, TCA_BPF_TAG and TCA_BPF_ID; a second time is nothing.

    Args:
        options: class of a filter's TCA_OPTIONS; pyroute2's own when it is not given.

    Raises:
        Unsupported: pyroute2's table is neither the one that was known when this was written, nor
            one that has the three attributes.
    """
    if options is None:
        from pyroute2.netlink.rtnl.tcmsg import sched_bpf

        options = sched_bpf.options
    table = getattr(options, "nla_map", None)
    if isinstance(table, tuple) and all(isinstance(row, tuple) and row for row in table):
        names = tuple(row[0] for row in table)
        if {name for name, _ in _ADDED} <= set(names):
            return
        # Rows are numbered by their place, so they fit only behind exactly these.
        if names == _KNOWN:
            options.nla_map = (*table, *_ADDED)
            return
    raise Unsupported(
        "this pyroute2 reads BPF tc filters in an unknown way, so their program ids are not known",
        hint="the node side was written for pyroute2 0.9.7",
    )
