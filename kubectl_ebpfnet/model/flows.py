"""The answer of `flows`: tracked flows of a node, each joined through its translations, and the
words for how a flow stands. JSON: docs/json.md; the words: docs/lists.md.
"""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ACK, FIN, RST, SYN, TCP
from kubectl_ebpfnet.model.path import Outcome, TrackedFlow

SCHEMA = "ebpfnet.dev/flows/v1"


class FlowState(StrEnum):
    """How a flow stands, by whichever table tracks it."""

    SYN_SENT = "SYN_SENT"
    """TCP: a SYN was sent, and nothing came back."""
    SYN_RECV = "SYN_RECV"
    """TCP: a SYN+ACK came back, and the ACK never followed."""
    ESTABLISHED = "ESTABLISHED"
    CLOSING = "CLOSING"
    """TCP: one side has closed."""
    CLOSED = "CLOSED"
    """TCP: both sides have closed, or one has reset it after it was open."""
    REFUSED = "REFUSED"
    """A RST, or an ICMP error, came back in place of an answer."""
    REPLIED = "REPLIED"
    """UDP, ICMP and others: an answer came back."""
    UNREPLIED = "UNREPLIED"
    """No answer came back, or none to what was sent last."""
    UNKNOWN = ""
    """No table tells."""


_NETFILTER = {
    "ESTABLISHED": FlowState.ESTABLISHED, "FIN_WAIT": FlowState.CLOSING,
    "CLOSE_WAIT": FlowState.CLOSING, "LAST_ACK": FlowState.CLOSING,
    "TIME_WAIT": FlowState.CLOSED, "CLOSE": FlowState.CLOSED,
}  # fmt: skip


def state_of(flow: TrackedFlow) -> FlowState:
    """Return how a flow stands. What Cilium saw counts where it has the flow: replies may pass
    netfilter by."""
    ct, nf = flow.cilium_ct or flow.service_ct, flow.netfilter
    tcp = flow.flow.protocol == TCP
    if flow.outcome is Outcome.REFUSED:
        return FlowState.REFUSED
    if flow.outcome is Outcome.UNKNOWN:
        if ct is not None:
            silent = bool(ct.last_request) and not ct.last_reply
        else:
            silent = nf is not None and "UNREPLIED" in nf.status
        return FlowState.UNREPLIED if silent and not tcp else FlowState.UNKNOWN
    if not tcp:
        answered = flow.outcome is Outcome.ANSWERED
        return FlowState.REPLIED if answered else FlowState.UNREPLIED
    if flow.outcome is Outcome.UNANSWERED:
        return _of_handshake(ct, nf.state if nf is not None else "")
    return _of_cilium(ct) if ct is not None else _NETFILTER.get(nf.state if nf else "", _UNKNOWN)


_UNKNOWN = FlowState.UNKNOWN


def _of_handshake(ct: CtEntry | None, by_netfilter: str) -> FlowState:
    if ct is None:
        known = by_netfilter in ("SYN_SENT", "SYN_RECV")
        return FlowState(by_netfilter) if known else FlowState.UNREPLIED
    if ct.request_flags & ACK:
        return FlowState.UNREPLIED
    if ct.reply_flags & SYN or by_netfilter == "SYN_RECV":
        return FlowState.SYN_RECV
    return FlowState.SYN_SENT if ct.request_flags & SYN else FlowState.UNREPLIED


def _of_cilium(ct: CtEntry) -> FlowState:
    closing = {"RxClosing", "TxClosing"} & ct.flags
    if len(closing) == 2:
        return FlowState.CLOSED
    if closing or (ct.tx_flags_seen | ct.rx_flags_seen) & (FIN | RST):
        return FlowState.CLOSING
    return FlowState.ESTABLISHED


def is_over(flow: TrackedFlow) -> bool:
    """Tell whether a flow is closed, or its lifetime has ended: a table only has not removed it."""
    seconds = flow.time_to_live
    return state_of(flow) is FlowState.CLOSED or (seconds is not None and seconds < 0)


@dataclass(frozen=True, slots=True)
class FlowList:
    """Flows of pods or of a node.

    Attributes:
        target: `pod NAMESPACE/NAME`, `node NAME`, or which pods: `pods in default`, ….
        node: whose tables were read, "" for several and where the pod has none.
        flows: those of which a packet was seen last first.
        missing: one sentence for each table that could not be read, or not whole.
        known: the tables that have such flows were read, so that none means that there are none.
        more: older flows that were read and are not among `flows`.
        over: flows that were read and are not among `flows` since they are over (`is_over`).
        owners: of each flow, the pod of this node that has it: `NAMESPACE/NAME`, "" for none;
            () where no pod was asked for.
    """

    target: str
    node: str
    flows: tuple[TrackedFlow, ...]
    missing: tuple[str, ...] = ()
    known: bool = True
    more: int = 0
    over: int = 0
    owners: tuple[str, ...] = ()
