"""The result of one connection attempt by the node side (`ebpfnet-node probe`)."""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """One connection that a netkat of the node side tried.

    Attributes:
        outcome: a word of model.probe.AttemptOutcome: `connected`, `refused`, `timeout`,
            `unreachable`, `icmp` or `error`.
        detail: one sentence more, "" for nothing.
        seconds: from the first packet to the connection, or to what ended the attempt.
        source, source_port: sent from; None when nothing was sent.
        device: sent by, "" when nothing was sent.
        answer: the start of what the peer sent, some KB, as UTF-8 with other bytes replaced.
    """

    outcome: str
    detail: str = ""
    seconds: float | None = None
    source: Address | None = None
    source_port: int | None = None
    device: str = ""
    answer: str = ""
    span: Span = field(default=NOWHERE, compare=False)
