"""Teaches pyroute2 the attributes of a tc filter that say which BPF program it runs, and its chain.

pyroute2 0.9.7's table of cls_bpf attributes ends at TCA_BPF_FLAGS and that of tc messages at
TCA_STAB, so that the kernel's answer to "which program is it?" decodes as UNKNOWN and its value is
lost. This is the one place that adds them, from outside, until a pyroute2 has them.

Sources: include/uapi/linux/pkt_cls.h (TCA_BPF_*), rtnetlink.h (TCA_*).
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import Unsupported

Rows = tuple[tuple[str, str], ...]

_BPF = (
    "TCA_BPF_UNSPEC", "TCA_BPF_ACT", "TCA_BPF_POLICE", "TCA_BPF_CLASSID", "TCA_BPF_OPS_LEN",
    "TCA_BPF_OPS", "TCA_BPF_FD", "TCA_BPF_NAME", "TCA_BPF_FLAGS",
)  # fmt: skip
_BPF_ADDED = (
    ("TCA_BPF_FLAGS_GEN", "uint32"),
    ("TCA_BPF_TAG", "cdata"),
    ("TCA_BPF_ID", "uint32"),
)
_TC = (
    "TCA_UNSPEC", "TCA_KIND", "TCA_OPTIONS", "TCA_STATS", "TCA_XSTATS", "TCA_RATE", "TCA_FCNT",
    "TCA_STATS2", "TCA_STAB",
)  # fmt: skip
_TC_ADDED = (("TCA_PAD", "hex"), ("TCA_DUMP_INVISIBLE", "hex"), ("TCA_CHAIN", "uint32"))
# What pyroute2 sets once it has read a class's table.
_READ = "_nlmsg_base__compiled_nla"


def teach() -> None:
    """Make pyroute2 decode TCA_BPF_TAG, TCA_BPF_ID and TCA_CHAIN; a second time does nothing.

    Raises:
        Unsupported: pyroute2's table of cls_bpf is neither the one that was known when this was
            written, nor one that has these attributes. Without TCA_CHAIN all filters are of one
            chain, as nearly all are.
    """
    from pyroute2.netlink.rtnl import tcmsg

    extend(tcmsg.tcmsg, _TC, _TC_ADDED)
    if not extend(tcmsg.sched_bpf.options, _BPF, _BPF_ADDED):
        raise Unsupported(
            "this pyroute2 reads BPF tc filters in an unknown way, so their programs are not known",
            hint="the node side was written for pyroute2 0.9.7",
        )


def extend(message: Any, known: tuple[str, ...], added: Rows) -> bool:
    """Put rows behind a message class's table of attributes, unless it has them.

    Rows are numbered by their place, so they fit only behind exactly what is known.

    Returns:
        Whether the class now has them.
    """
    table = getattr(message, "nla_map", None)
    if not isinstance(table, tuple) or not all(isinstance(row, tuple) and row for row in table):
        return False
    names = tuple(row[0] for row in table)
    if {name for name, _ in added} <= set(names):
        return True
    if names != known:
        return False
    message.nla_map = (*table, *added)
    if vars(message).get(_READ):  # such a message came before, so that the old table was read
        setattr(message, _READ, False)
    return True
