"""What loses or delays packets beside every rule: qdiscs, and what devices' counters tell.

A qdisc that drops all of its packets drops this one. All else is a warning, since counters begin
with the device or the qdisc: they tell that packets were lost there, not that this one is. So
they are said only where they are a part of the traffic that is felt: at 1 % TCP slows down.

Sources: Linux net/sched/sch_{blackhole,netem,tbf}.c; Documentation/networking/statistics.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.kernel.devices import lower_devices
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import Counter, Qdisc
from kubectl_ebpfnet.model.path import Fix, HopKind, HopPlace, Severity, State
from kubectl_ebpfnet.model.shell import word

PART = 0.01
"""Part of the packets from which on losses are said."""
_LEAST, _LEAST_BY_SHAPER = 100, 10
_HOOKS = ("clsact", "ingress")
"""Qdiscs that queue nothing: what they count was dropped by programs and filters, Cilium's too."""
_SHAPERS = frozenset(("tbf", "htb", "hfsc", "cbq", "cake", "netem", "plug", "ets"))
_LOST = ("errors", "dropped", "missed_errors")


def sends(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Pass the qdiscs of a node's device and of those below it, and report what they lost.

    Args:
        walk: takes the drop and the findings.
        here: the packet at the device.
        node: of the device.
        device: by which it leaves.

    Returns:
        Whether the packet goes on.
    """
    for name in (device, *lower_devices(node, device)):
        found = node.having(q.QDISCS, name, "device")
        where = (HopPlace.NODE, name, here.node, HopKind.LINK)
        if not _queued(walk, here, where, found, node[q.QDISCS].record):
            return False
        device_losses(walk, node, name, "tx")
    return True


def sends_in_pod(
    walk: PathBuilder, here: PacketState, netns: PodNetns, pod: str, device: str
) -> bool:
    """Pass the qdiscs of a pod's own device: `ip` names the kind alone, a node pod reads them.

    Args:
        walk: takes the drop and the findings.
        here: the packet in the pod.
        netns: of the pod.
        pod: NAMESPACE/NAME.
        device: in the pod.

    Returns:
        Whether the packet goes on.
    """
    found = netns.having(q.POD_QDISCS, device, "device")
    record = netns[q.POD_QDISCS].record
    link = netns.link(device)
    if not netns[q.POD_QDISCS].known and link is not None:
        found = [Qdisc(device, link.qdisc, span=link.span.head())]
        record = netns[q.POD_LINKS].record
    where = (HopPlace.POD, pod, here.node, HopKind.LINK)
    return _queued(walk, here, where, found, record)


def _queued(
    walk: PathBuilder,
    here: PacketState,
    where: Where,
    found: Sequence[Qdisc],
    record: Record | None,
) -> bool:
    place, name, node, _ = where
    for qdisc in found:
        title = f"qdisc {qdisc.kind} at {qdisc.device} of "
        title += f"pod {name}" if place is HopPlace.POD else f"node {node}"
        evidence = cite.of(record, qdisc.span)
        if qdisc.root and (qdisc.kind == "blackhole" or qdisc.loss == 1.0):
            walk.drop(
                *where, f"{title} drops everything", State.OBSERVED, here.packet, evidence,
                title=f"{title} drops everything",
                detail="Somebody set it: neither Kubernetes nor Cilium does.",
                fix=Fix(
                    "Take it away; the device then has its default qdisc again.",
                    f"tc qdisc del dev {word(qdisc.device)} root",
                ),
            )  # fmt: skip
            return False
        if qdisc.kind not in _HOOKS:
            _report(walk, qdisc, title, record)
    return True


def _report(walk: PathBuilder, qdisc: Qdisc, title: str, record: Record | None) -> None:
    shapes = qdisc.kind in _SHAPERS
    said = []
    if qdisc.loss:
        said.append(f"drops {qdisc.loss:.2%} of its packets on purpose")
    if qdisc.rate:
        said.append(f"lets {qdisc.rate * 8 / 1e6:g} Mbit/s pass")
    least = _LEAST_BY_SHAPER if shapes else _LEAST
    lost = _felt(qdisc.drops, qdisc.packets + qdisc.drops, least)
    if lost:
        said.append(f"dropped {qdisc.drops} of {qdisc.packets + qdisc.drops} packets")
    if not said and not shapes:
        return
    if qdisc.waiting:
        said.append(f"{qdisc.waiting} packets wait in it")
    walk.finding(
        Severity.WARNING if lost or qdisc.loss else Severity.INFO,
        f"{title} {', '.join(said) or 'shapes or delays what is sent'}",
        f"Counted since it was made: `tc -s qdisc show dev {word(qdisc.device)}` twice shows "
        "whether it drops now.",
        cite.of(record, qdisc.span),
    )


def device_losses(walk: PathBuilder, node: NodeView, device: str, way: str) -> None:
    """Report a device that lost a part of its packets that is felt.

    Args:
        walk: takes the finding.
        node: of the device.
        device: its name.
        way: `rx` for what it receives, `tx` for what it sends.
    """
    fact = q.COUNTERS if node[q.COUNTERS].known else q.DEVICE_COUNTERS
    counters: dict[str, Counter] = {
        counter.name: counter for counter in node.having(fact, device, "device")
    }
    lost = [counters[name] for part in _LOST if (name := f"{way}_{part}") in counters]
    lost = [counter for counter in lost if counter.value]
    packets = counters.get(f"{way}_packets")
    if packets is None or not _felt(sum(c.value for c in lost), packets.value, _LEAST):
        return
    named = ", ".join(f"{counter.name} {counter.value}" for counter in lost)
    does = "receives" if way == "rx" else "sends"
    walk.finding(
        Severity.WARNING,
        f"{device} of node {node.name} loses packets that it {does}: {named}, of {packets.value}",
        f"Counted since it was made: `ip -s -s link show {word(device)}` twice shows whether it "
        f"loses some now, `ethtool -S {word(device)}` why.",
        cite.of(node[fact].record, *dict.fromkeys(counter.span for counter in (packets, *lost))),
    )


def _felt(lost: int, packets: int, least: int) -> bool:
    return lost >= max(least, PART * packets)
