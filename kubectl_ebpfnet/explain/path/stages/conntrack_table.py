"""Whether the node's nf_conntrack has room for a new flow.

Source: Linux net/netfilter/nf_conntrack_core.c (__nf_conntrack_alloc: "table full, dropping
packet").
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import Fix, HopKind, Severity, State
from kubectl_ebpfnet.model.shell import word

_LOST = ("drop", "early_drop")
NEARLY_FULL = 0.75
"""Part of the table from which on what it lost before is a warning."""
_COUNT, _MOST = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


def table_is_full(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Drop the first packet of a flow where nf_conntrack is full; return whether it is.

    Args:
        walk: takes the drop.
        here: the packet in the node's stack.
        node: the node.
    """
    count, most = node.sysctl(_COUNT), node.sysctl(_MOST)
    _report_losses(walk, node, count, most)
    tracked = tracked_at(walk, here)
    known_flow = tracked is not None and tracked.netfilter is not None and walk.answered_now()
    if not count or not most or count < most or known_flow:
        return False
    spans = [fact.span for name in (_COUNT, _MOST) for fact in node.having(q.SYSCTLS, name, "name")]
    text = f"nf_conntrack of {here.node} is full: {count} of at most {most} connections"
    walk.drop(
        *here.on_node(HopKind.CONNTRACK),
        text,
        State.DERIVED,
        here.packet,
        cite.of(node[q.SYSCTLS].record, *spans),
        title=text,
        detail="The kernel drops the first packet of a connection that has no room. Raise "
        "net.netfilter.nf_conntrack_max, or find who opens them: "
        f"`kubectl ebpfnet flows node/{word(here.node)}`.",
        fix=Fix(
            f"Make room on {here.node}, or find who opens so many connections.",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * count}",
        ),
    )
    return True


def _report_losses(walk: PathBuilder, node: NodeView, count: int | None, most: int | None) -> None:
    """Report what nf_conntrack dropped, or evicted, for want of room: where it is nearly full now,
    or where it may be the reason that no answer came. `drop` alone counts packets of other kinds
    too, such as those of a state that is not followed: of a table with room it says nothing."""
    fact = q.COUNTERS if node[q.COUNTERS].known else q.CONNTRACK_COUNTERS
    lost = [
        counter
        for name in _LOST
        for counter in node.having(fact, ("conntrack", name), "group", "name")
        if counter.value
    ]
    nearly_full = bool(count and most and count >= NEARLY_FULL * most)
    roomy = count is not None and bool(most) and not nearly_full
    drops_alone = all(counter.name == "drop" for counter in lost)
    if not lost or (walk.answered_now() and not nearly_full) or (roomy and drops_alone):
        return
    now = "how many it holds now was not read (`sysctl net.netfilter.nf_conntrack_count`)"
    if count is not None and most is not None:
        now = f"it holds {count} of at most {most} now"
    walk.finding(
        Severity.WARNING if nearly_full else Severity.INFO,
        f"nf_conntrack of {node.name} lost connections for want of room: "
        + ", ".join(f"{counter.name} {counter.value}" for counter in lost),
        f"Counted since boot; {now}.",
        cite.of(node[fact].record, *dict.fromkeys(counter.span for counter in lost)),
    )
