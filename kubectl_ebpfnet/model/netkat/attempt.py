"""What one connection attempt of the node side came to (`ebpfnet-node probe`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubectl_ebpfnet.model.net import Address


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """One connection that a netkat of the node side tried.

    Attributes:
        outcome: a word of model.probe.Outcome: `connected`, `refused`, `timeout`, `unreachable`,
            `icmp` or `error`.
        detail: one sentence more, "" for nothing.
        seconds: from the first packet to the connection, or to what ended the attempt.
        source, source_port: what it was sent from; None when it did not come to that.
        device: that it left by, "" when it did not come to that.
        answer: what the peer sent, at most some KB, as UTF-8; what is none is replaced.
    """

    outcome: str
    detail: str = ""
    seconds: float | None = None
    source: Address | None = None
    source_port: int | None = None
    device: str = ""
    answer: str = ""
    line: int = field(default=0, compare=False)
