"""The newest attempt to send a flow, as the tracking tables show it."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.path import Attempt, Outcome, TrackedFlow


def newest(flows: Sequence[TrackedFlow]) -> Attempt | None:
    """Return the newest attempt of matching flows (newest first), None without one."""
    if not flows:
        return None
    flow = flows[0]
    answered = _answered(flow)
    outcome = Outcome.ANSWERED if answered else Outcome.UNANSWERED
    word = "was answered" if answered else "was not answered"
    return Attempt(flow, outcome, None, f"{flow.flow} {word}, when is not known")


def _answered(tracked: TrackedFlow) -> bool:
    """Tell whether a conntrack table shows packets of the reply direction."""
    if tracked.netfilter is not None and "UNREPLIED" not in tracked.netfilter.status:
        return True
    return tracked.cilium_ct is not None and tracked.cilium_ct.rx_flags_seen != 0
