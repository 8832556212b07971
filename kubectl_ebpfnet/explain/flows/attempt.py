"""The newest attempt to send a flow, as the tracking tables of its source's node show it."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.flows.outcome import came_back
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import Attempt, Outcome, TrackedFlow


def newest(flows: Sequence[TrackedFlow], node: NodeView) -> Attempt | None:
    """Return the newest attempt of matching flows, None without one.

    Args:
        flows: of one query, newest first.
        node: whose tables have them.
    """
    if not flows:
        return None
    flow = flows[0]
    outcome, words = came_back(flow)
    if outcome is Outcome.UNANSWERED and flow.cilium_ct is None and _may_pass_by(node):
        outcome = Outcome.UNKNOWN
        words += (
            ", but answers may pass netfilter by, and Cilium's conntrack of "
            f"{node.name} is not known"
        )
    return Attempt(flow, outcome, flow.last_seen.any, f"{flow.flow} {words}{_when(flow)}")


def _may_pass_by(node: NodeView) -> bool:
    """Tell whether Cilium may hand answers past netfilter and its own table was not read."""
    config = node.config
    has_cilium = bool(config.version or config.routing_mode or config.masquerade)
    return has_cilium and config.host_routing != "legacy" and not node.table_state(q.CT).known


def _when(flow: TrackedFlow) -> str:
    age = flow.last_seen.any
    if age is None:
        return f", when is not known ({flow.last_seen.reason})" if flow.last_seen.reason else ""
    return f", {age:.0f} s before the table was read"
