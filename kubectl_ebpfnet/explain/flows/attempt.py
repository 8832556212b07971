"""The newest attempt to send a flow, as the tracking tables of its source's node show it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from kubectl_ebpfnet.explain.flows.outcome import came_back
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import LIVE
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import Address
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
    text = f"{flow.flow} {_dated(words, _when(flow))}"
    then = "ago" if node.bundle.source == LIVE else "before the record"
    short = _dated(words.removeprefix("was "), _when_in_short(flow, then))
    ends = {end for each in flows for end in (each.flow.destination, each.translated.destination)}
    unread = _unread(node, ends)
    if unread:
        newer = f"; a newer attempt may be in {unread}"
        return Attempt(flow, outcome, None, f"{text}{newer}", f"{short}{newer}")
    return Attempt(flow, outcome, flow.last_seen.any, text, short)


def untracked(node: NodeView, ends: Collection[Address]) -> str:
    """Return that no attempt is tracked, or why that is not known, in words.

    Args:
        node: of the source; its tables have been searched.
        ends: destinations of the flows.
    """
    ct, nf = node.table_state(q.CT), node.table_state(q.CONNTRACK)
    unread = _unread(node, ends)
    if ct.known or (nf.known and not _has_cilium(node)):
        return f"no attempt is tracked, but for {unread}" if unread else "no attempt is tracked"
    return f"attempts are not known: Cilium's conntrack of {node.name}: {ct.missing}"


def _unread(node: NodeView, ends: Collection[Address]) -> str:
    """Return which lines of the tables that were searched may be of the flows, "" for none."""
    needles = [text for end in ends for text in (str(end), expanded(end))]
    tables: tuple[tuple[Fact[Any], str], ...] = (
        (q.CT, "Cilium's conntrack"),
        (q.CONNTRACK, "nf_conntrack"),
    )
    found = [(name, node.unread_lines(table, needles)) for table, name in tables]
    return "; ".join(f"{name} of {node.name}, where {text}" for name, text in found if text)


def _has_cilium(node: NodeView) -> bool:
    config = node.config
    return bool(config.version or config.routing_mode or config.masquerade)


def _may_pass_by(node: NodeView) -> bool:
    """Tell whether Cilium may hand answers past netfilter and its own table was not read."""
    legacy = node.config.host_routing == "legacy"
    return _has_cilium(node) and not legacy and not node.table_state(q.CT).known


def _dated(words: str, when: str) -> str:
    """Return what came back with its time, before what else is known of it."""
    what = re.split("; |, but |, as ", words, maxsplit=1)[0]
    return f"{what}{when}{words.removeprefix(what)}"


def _when(flow: TrackedFlow) -> str:
    age = flow.last_seen.any
    if age is None:
        return f", when is not known ({flow.last_seen.reason})" if flow.last_seen.reason else ""
    return f", {age:.0f} s before the table was read"


def _when_in_short(flow: TrackedFlow, then: str) -> str:
    """Return when a flow was last seen, and which table shows it; `then` ends its age."""
    by_netfilter = flow.cilium_ct is None and flow.service_ct is None
    where = f"({flow.node})" if by_netfilter else f"(Cilium CT, {flow.node})"
    age = flow.last_seen.any
    when = ", when is not known" if age is None else f" {age:.0f}s {then}"
    return f"{when} {where}"
