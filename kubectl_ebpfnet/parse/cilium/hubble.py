"""`hubble observe` in the agent's container: what the datapath told of single packets.

In JSON each line is `{"flow": {…}, "node_name": …, "time": …}`; up to Cilium 1.8 `-o json` prints
the flow alone. The text (-o compact, which people paste) has names where hubble knows them, no
year, and turns an answer round:

    Nov 30 03:12:43.220: default/client:42998 (ID:15790) -> 172.31.7.11:10250 (remote-node)
        to-network FORWARDED (TCP Flags: ACK)

Source: Cilium api/v1/flow/flow.proto (Flow, DropReason, TraceObservationPoint),
pkg/hubble/parser/threefour, hubble/pkg/printer, cilium-facts 2.13; verified with 1.9.8, 1.13.7 and
1.18. An event is told in monitor's words (parse/cilium/monitor.py), so that both are read alike.
Other lines, such as lost events, L7 requests and log lines of the client, give None.
"""

from __future__ import annotations

import re
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium_events import MonitorEvent, NamedFlow
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, TCP, UDP, Flow
from kubectl_ebpfnet.parse._text import json_value
from kubectl_ebpfnet.parse.cilium.monitor import echo_of

SOURCE = "hubble observe"
_LAYERS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP, "ICMPv4": ICMP, "ICMPv6": ICMPV6}
_TCP_FLAGS = ("SYN", "ACK", "RST", "FIN", "PSH", "URG", "ECE", "CWR")
_DROP, _TRACE, _VERDICT = 1, 4, 5
"""pkg/monitor/api/types.go: MessageTypeDrop, MessageTypeTrace, MessageTypePolicyVerdict."""
_ACTIONS = {"FORWARDED": "allow", "DROPPED": "deny", "AUDIT": "audit", "REDIRECTED": "redirect"}
_CAPITALS = frozenset(
    ("CT", "DSR", "EDT", "FIB", "ICMP", "ID", "IP", "L2", "L3", "L4", "LB", "NAT")
)
_RENAMED = {"POLICY_DENY": "Policy denied by denylist"}
"""Reasons that monitor words otherwise (pkg/monitor/api/drop.go)."""
_WORDS = {"ALLOWED": "allow", "DENIED": "deny", "AUDITED": "audit", "REDIRECTED": "redirect"}
"""How the text names a policy's verdict; before 1.14 by the verdicts of JSON."""
_WORDS |= {"FORWARDED": "allow", "DROPPED": "deny", "AUDIT": "audit"}
_TEXT = re.compile(
    r"(?P<time>[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d\.\d{1,9})(?: \[[^\]]{1,256}\])?: "
    r"(?P<first>\S{1,512})(?: \([^)]{0,256}\))? (?P<arrow><>|->|<-) (?P<second>\S{1,512})"
    r"(?: \([^)]{0,256}\))? (?P<what>.{1,256}) (?P<verdict>[A-Z]{3,16})(?: \((?P<layer>.*)\))?"
)
_LARGEST_PORT = 0xFFFF


def event(line: bytes, number: int) -> MonitorEvent | None:
    """Parse one line of the output.

    Args:
        line: without its newline.
        number: 1-based, for errors.

    Returns:
        The event; None for a line that is no trace, drop or policy verdict.

    Raises:
        ParseError: the line begins like JSON, but is malformed.
    """
    if not line.lstrip().startswith(b"{"):
        return _text_event(line.decode("utf-8", "replace").strip())
    try:
        value = json_value(line, SOURCE)
    except ParseError as error:
        raise ParseError(SOURCE, number, error.problem) from None
    flow = js.dig(value, "flow")
    flow = value if flow is None else flow
    kind, summary = _said(flow)
    if not kind:
        return None
    inwards = js.text(flow, "traffic_direction").lower()
    return MonitorEvent(
        kind=kind,
        summary=summary,
        flow=_flow(flow),
        tcp_flags=tuple(name for name in _TCP_FLAGS if js.flag(flow, "l4", "TCP", "flags", name)),
        icmp=_echo(flow),
        source_identity=js.number(flow, "source", "identity") or 0,
        destination_identity=js.number(flow, "destination", "identity") or 0,
        state=js.text(flow, "trace_reason").lower() if kind == "trace" else "",
        device=js.text(flow, "interface", "name"),
        translated_source=js.address(js.text(flow, "IP", "source_xlated")),
        direction=inwards if kind == "policy-verdict" else "",
        code=_code(flow),
        time=js.text(flow, "time") or js.text(value, "time"),
    )


def _text_event(text: str) -> MonitorEvent | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    what, verdict, layer = match["what"], match["verdict"], match["layer"] or ""
    kind, summary, direction = "", "", ""
    if what.startswith("policy-verdict:"):
        kind, summary = "policy-verdict", _WORDS.get(verdict, "")
        direction = what.rpartition(" ")[2].lower()
    elif verdict == "DROPPED" and not what.endswith((" proxy", "-request", "-response")):
        kind, summary = "drop", what
    elif verdict == "FORWARDED" and what.startswith(("to-", "from-")):
        way, _, place = what.partition("-")
        kind, summary = "trace", f"{'->' if way == 'to' else '<-'} {place}"
    if not summary:
        return None
    ends = [match["first"], match["second"]]
    if match["arrow"] == "<-":  # an answer: hubble prints the client first
        ends.reverse()
    protocol = next((n for name, n in _LAYERS.items() if layer.startswith(name)), 0)
    named = NamedFlow(protocol, *_end(ends[0]), *_end(ends[1]))
    source, destination = js.address(named.source), js.address(named.destination)
    flow = None
    if source is not None and destination is not None:
        flow = Flow(protocol, source, named.source_port, destination, named.destination_port)
    flags = layer.partition("TCP Flags: ")[2]
    return MonitorEvent(
        kind=kind,
        summary=summary,
        flow=flow,
        tcp_flags=tuple(name for name in _TCP_FLAGS if name in flags.split(", ")),
        icmp=echo_of(layer),
        direction=direction,
        time=match["time"],
        named=named if flow is None else None,
    )


def _end(text: str) -> tuple[str, int | None]:
    """Return the name or address of an end, and its port."""
    if js.address(text) is not None:  # IPv6 without a port
        return text, None
    name, _, digits = text.rpartition(":")
    if not name or not digits.isascii() or not digits.isdigit() or len(digits) > 5:
        return text, None
    port = int(digits)
    return name.strip("[]"), port if port <= _LARGEST_PORT else None


def _said(flow: Any) -> tuple[str, str]:
    """Return the kind of an event and its summary in monitor's words; ("", "") for other kinds."""
    kind = js.number(flow, "event_type", "type")
    verdict = js.text(flow, "verdict")
    if kind == _DROP:
        return "drop", _reason(js.text(flow, "drop_reason_desc"), js.number(flow, "drop_reason"))
    if kind == _VERDICT and verdict in _ACTIONS:
        return "policy-verdict", _ACTIONS[verdict]
    if kind == _TRACE:
        way, _, place = js.text(flow, "trace_observation_point").lower().partition("_")
        if way not in ("to", "from") or not place:
            return "", ""
        arrow = "->" if way == "to" else "<-"
        end = js.number(flow, "destination" if way == "to" else "source", "ID")
        return "trace", f"{arrow} {place}" + (f" {end}" if place == "endpoint" and end else "")
    return "", ""


def _reason(name: str, number: int | None) -> str:
    """Return a drop reason as monitor prints it: `FIB lookup failed` for FIB_LOOKUP_FAILED."""
    if not name:
        return f"reason {number}" if number is not None else "no reason given"
    if name in _RENAMED:
        return _RENAMED[name]
    words = [word if word in _CAPITALS else word.lower() for word in name.split("_")]
    return " ".join(words)[:1].upper() + " ".join(words)[1:]


def _flow(flow: Any) -> Flow | None:
    source, destination = (
        js.address(js.text(flow, "IP", end)) for end in ("source", "destination")
    )
    if source is None or destination is None:
        return None
    for layer, protocol in _LAYERS.items():
        found = js.dig(flow, "l4", layer)
        if not isinstance(found, dict):
            continue
        if protocol in (ICMP, ICMPV6):
            return Flow(protocol, source, None, destination, None)
        return Flow(
            protocol, source, _port(found, "source"), destination, _port(found, "destination")
        )
    return Flow(0, source, None, destination, None)


def _echo(flow: Any) -> str:
    """Return the kind of an echo (RFC 792; RFC 4443, 4.1), which has no `type` where that is 0."""
    for layer, request, reply in (("ICMPv4", 8, 0), ("ICMPv6", 128, 129)):
        if isinstance(js.dig(flow, "l4", layer), dict):
            kind = js.number(flow, "l4", layer, "type") or 0
            return {request: "EchoRequest", reply: "EchoReply"}.get(kind, "")
    return ""


def _port(layer: dict[str, Any], end: str) -> int | None:
    port = js.number(layer, f"{end}_port")
    return port if port is not None and 0 <= port <= _LARGEST_PORT else None


def _code(flow: Any) -> str:
    """Return where in Cilium's source the packet was dropped: `bpf_lxc.c:1356`, "" if not said."""
    name, line = js.text(flow, "file", "name"), js.number(flow, "file", "line")
    return f"{name}:{line}" if name and line else name
