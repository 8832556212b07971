"""The kernel's own connection tracking (nf_conntrack).

Source: Linux net/netfilter/nf_conntrack_standalone.c (ct_seq_show), conntrack(8).
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Flow


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """One connection that netfilter tracks.

    Attributes:
        original: 5-tuple of the first packet; ICMP: source_port holds the echo identifier,
            destination_port is None.
        reply: 5-tuple that a reply is expected to have; NAT shows here. ICMP:
            destination_port holds the echo identifier, source_port is None.
        timeout: seconds left, None for offloaded flows.
        state: TCP/SCTP state word, "" for other protocols.
        status: words in brackets: ASSURED, UNREPLIED, OFFLOAD, HW_OFFLOAD.
        mark: connection mark, None when not printed.
        zone: conntrack zone, 0 when not printed.
        packets, bytes: sum of both directions, None when accounting is off.
    """

    original: Flow
    reply: Flow
    timeout: int | None = None
    state: str = ""
    status: frozenset[str] = frozenset()
    mark: int | None = None
    zone: int = 0
    packets: int | None = None
    bytes: int | None = None

    @property
    def source_nat(self) -> bool:
        """Whether the source address, or its port or ICMP identifier, is rewritten."""
        reply, sent = self.reply, self.original
        return (reply.destination, reply.destination_port) != (sent.source, sent.source_port)

    @property
    def destination_nat(self) -> bool:
        """Whether the destination address or port is rewritten."""
        reply, sent = self.reply, self.original
        return (reply.source, reply.source_port) != (sent.destination, sent.destination_port)

    def translated(self) -> Flow:
        """Return the original packet after all of this entry's NAT."""
        return self.reply.reversed()
