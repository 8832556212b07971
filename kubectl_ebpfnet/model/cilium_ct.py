"""Connections as Cilium tracks and translates them: entries of its conntrack and NAT maps.

Sources: Cilium's pkg/maps/ctmap, pkg/maps/nat, bpf/lib/conntrack.h, bpf/lib/nat.h. Such tables are
read line by line: their entries have no `span` (explain/views/answer.py, FactLine).
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, has_ports


@dataclass(frozen=True, slots=True)
class CtEntry:
    """An entry of Cilium's connection tracking maps (pkg/maps/ctmap).

    What Cilium counts as sent ("Tx") and received ("Rx") is as the entry's end of the connection
    sees
    it: requests of an OUT or SVC entry are sent, those of an IN entry are received (bpf/lib/
    conntrack.h, ct_update_timeout). A SVC entry never sees replies.

    Attributes:
        flow: initiator → destination, however the map or the version stores and prints it.
        direction: `OUT` (made at the client's side), `IN` (at the server's), `SVC` (per-packet
            load-balancing: destination is the frontend).
        related: the companion entry that lets ICMP errors pass.
        expires: lifetime in the datapath's own clock, None when not said.
        remaining: seconds left, negative when expired but not yet collected; None when not said.
        flags: names, e.g. {"RxClosing", "SeenNonSyn"}.
        tx_flags_seen, rx_flags_seen: TCP flag bits of the packets sent and received.
        last_tx_report, last_rx_report: when a packet was last sent and received, in the datapath's
            own clock as `expires`; 0 for never, None when not said. Cilium writes it for a packet
            with new flags, else every 5 s (CT_REPORT_INTERVAL), so the last packet may be younger.
        packets, bytes: both directions, None when not counted (zero is "not counted": accounting
            is off by default since 1.17).
        rev_nat: reverse NAT id, 0 for none.
        source_identity: security identity of the initiator, 0 when not set.
        backend_id: of SVC entries, 0 when not said.
    """

    flow: Flow
    direction: str
    related: bool = False
    expires: int | None = None
    remaining: int | None = None
    flags: frozenset[str] = frozenset()
    tx_flags_seen: int = 0
    rx_flags_seen: int = 0
    packets: int | None = None
    bytes: int | None = None
    rev_nat: int = 0
    source_identity: int = 0
    backend_id: int = 0
    last_tx_report: int | None = None
    last_rx_report: int | None = None

    @property
    def request_flags(self) -> int:
        """TCP flag bits that the initiator sent."""
        return self.rx_flags_seen if self.direction == "IN" else self.tx_flags_seen

    @property
    def reply_flags(self) -> int:
        """TCP flag bits that the destination sent."""
        return self.tx_flags_seen if self.direction == "IN" else self.rx_flags_seen

    @property
    def last_request(self) -> int | None:
        """When the initiator last sent a packet, as the reports say it."""
        return self.last_rx_report if self.direction == "IN" else self.last_tx_report

    @property
    def last_reply(self) -> int | None:
        """When the destination last sent a packet, as the reports say it."""
        return self.last_tx_report if self.direction == "IN" else self.last_rx_report


def ct_flow(
    protocol: int, initiator: tuple[Address, int], destination: tuple[Address, int], related: bool
) -> Flow:
    """Return the flow of a conntrack entry's tuple, without ports that have no meaning.

    Args:
        protocol: IANA number.
        initiator: its address and port.
        destination: its address and port.
        related: it is an entry for ICMP errors.
    """
    if related:
        return Flow(protocol, initiator[0], None, destination[0], None)
    if has_ports(protocol):
        return Flow(protocol, *initiator, *destination)
    # ICMP: the identifier stands in the initiator's port; nothing stands in the other.
    return Flow(
        protocol, initiator[0], initiator[1] or destination[1] or None, destination[0], None
    )


@dataclass(frozen=True, slots=True)
class NatEntry:
    """An entry of Cilium's SNAT maps (pkg/maps/nat).

    Attributes:
        flow: the packet as it comes to the map: OUT before translation, IN as the reply arrives.
        direction: `OUT` (the source is rewritten) or `IN` (the destination is rewritten back).
        address, port: the new source, or destination.
        age: seconds since it was made, None when not said or bogus (Cilium ≤ 1.14).
        needs_ct: the source was the node's own address; only the port was reserved.
    """

    flow: Flow
    direction: str
    address: Address
    port: int
    age: int | None = None
    needs_ct: bool = False

    def translated(self) -> Flow:
        """Return the packet after this entry's NAT."""
        if self.direction == "IN":
            return self.flow.with_destination(self.address, self.port)
        return self.flow.with_source(self.address, self.port)
