"""What Cilium's datapath reported of packets: events, as its monitor and hubble print them; counts.

Sources: Cilium's pkg/monitor, pkg/hubble/parser, pkg/maps/metricsmap.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Flow


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A row of `bpf metrics list`. `direction` is `ingress`, `egress`, `service` or `unknown`."""

    reason: str
    direction: str
    packets: int
    bytes: int
    source: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class NamedFlow:
    """A packet's ends as hubble's text names them: `default/client`, an address, a DNS name.

    Attributes:
        protocol: IANA number, 0 when not said.
        source, destination: names or addresses, without the port.
        source_port, destination_port: None when not said.
    """

    protocol: int
    source: str
    source_port: int | None
    destination: str
    destination_port: int | None


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """What Cilium's datapath reported of a packet: a line of `cilium monitor` or `hubble observe`.

    Attributes:
        kind: `trace`, `drop` or `policy-verdict`.
        summary: e.g. `-> stack`, the drop reason, or `deny`, `allow`, `redirect`, `audit`.
        flow: None when the line has no addresses.
        tcp_flags: e.g. ("SYN",).
        source_identity, destination_identity: number, 0 when a name or not said; the names are in
            `source_label`, `destination_label`.
        state: connection state word of a trace, "" otherwise.
        device: device name, "" for none.
        original_address: source before SNAT/LB, None when not said.
        translated_source: source after SNAT/LB, None when not said (hubble names the original).
        direction: of a verdict, "" otherwise.
        code: file and line in Cilium's source that dropped it, `bpf_lxc.c:1356`; "" when not said.
        time: on the node's clock, RFC 3339, or `Nov 30 03:12:43.220` (UTC) as hubble's text has
            it; "" where monitor says none.
        named: the packet where hubble's text names an end; `flow` is None then.
        icmp: `EchoRequest`, `EchoReply`; "" for other packets, and where it is not said.
        seq, ack: of TCP; `seq` of an ICMP echo is its number. None where the line has none: the
            text of monitor, and hubble.
    """

    kind: str
    summary: str
    flow: Flow | None
    tcp_flags: tuple[str, ...] = ()
    source_identity: int = 0
    destination_identity: int = 0
    source_label: str = ""
    destination_label: str = ""
    state: str = ""
    device: str = ""
    original_address: Address | None = None
    translated_source: Address | None = None
    direction: str = ""
    code: str = ""
    time: str = ""
    named: NamedFlow | None = None
    icmp: str = ""
    seq: int | None = None
    ack: int | None = None

    @property
    def point(self) -> str:
        """The observation point of a trace: `to-stack` for `-> stack`; "" for other kinds."""
        arrow, _, place = self.summary.partition(" ")
        if self.kind != "trace" or arrow not in ("->", "<-"):
            return ""
        return ("to-" if arrow == "->" else "from-") + place.partition(" ")[0]

    @property
    def is_answer(self) -> bool | None:
        """Whether the packet answers another: by the flags that open a connection (RFC 9293, 3.5),
        the type of an echo (RFC 792) or conntrack's word; None where none of them says."""
        if "SYN" in self.tcp_flags:
            return "ACK" in self.tcp_flags
        if self.icmp:
            return self.icmp == "EchoReply"
        return {"new": False, "established": False, "reply": True}.get(self.state)
