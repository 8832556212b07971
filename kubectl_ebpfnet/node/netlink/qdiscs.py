"""Queueing disciplines of a network namespace, equal to `tc -s qdisc show`.

Sources: rtnetlink(7); Linux include/uapi/linux/{pkt_sched,gen_stats}.h (struct tc_netem_qopt: loss
is a part of 2^32 - 1), net/sched/sch_{tbf,netem}.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETQDISC

from kubectl_ebpfnet.model.kernel import Qdisc
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.links import devices
from kubectl_ebpfnet.node.netlink.rtnetlink import dump

_ROOT = 0xFFFFFFFF  # TC_H_ROOT
_ALL = 0xFFFFFFFF


def qdiscs(_: NodeRequest) -> Iterator[Qdisc]:
    """Yield the queueing disciplines of this namespace. Raises KernelError."""
    names = {device.index: device.name for device in devices()}
    for message in dump(RTM_GETQDISC, "list qdiscs"):
        name = names.get(message["index"])
        if name is not None:
            yield qdisc(message, name)


def qdisc(message: Any, device: str) -> Qdisc:
    """Return the qdisc of an RTM_NEWQDISC message."""
    kind = message.get_attr("TCA_KIND") or ""
    options = message.get_attr("TCA_OPTIONS")
    statistics = message.get_attr("TCA_STATS2")
    basic, queue = (
        (statistics.get_attr(name) if statistics is not None else None) or {}
        for name in ("TCA_STATS_BASIC", "TCA_STATS_QUEUE")
    )
    return Qdisc(
        device=device,
        kind=kind,
        root=message["parent"] == _ROOT,
        packets=basic.get("packets", 0),
        drops=queue.get("drops", 0),
        waiting=queue.get("qlen", 0),
        rate=_rate(kind, options),
        loss=options["loss"] / _ALL if kind == "netem" and options else 0.0,
    )


def _rate(kind: str, options: Any) -> int | None:
    if kind != "tbf" or not options:
        return None
    parameters = options.get_attr("TCA_TBF_PARMS")
    return int(parameters["rate"]) if parameters is not None else None
