"""`cilium-dbg monitor`: events of single packets.

Source: Cilium pkg/monitor/{datapath_trace,datapath_drop,datapath_policy,dissect}.go, cilium-facts
2.12. The events are traces, drops and policy verdicts, in the text of any version and in the JSON
of `-j` (where verdicts stay text). Other lines, such as the banner, log lines, debug, capture,
agent and L7 messages, give None.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, Address, Flow, has_ports
from kubectl_ebpfnet.parse._text import address, hardware_address, integer, json_value, quoted
from kubectl_ebpfnet.parse.cilium.tuple import address_and_port, u8proto

SOURCE = "cilium monitor"
UNKNOWN_PROTOCOL = 0
"""The protocol of a packet whose event has only addresses."""

_DROP = "xx drop ("
_VERDICT = "Policy verdict log: "
_FLOW = " flow 0x"
_TUNNEL = " [tunnel "
_IPSEC = {"IPsecESP": 50, "IPsecAH": 51}
_LARGEST_IDENTITY = 2**32 - 1

# The text names these four in this order (dissect.go, getTCPInfo); JSON has them all.
_TCP_FLAGS = ("SYN", "ACK", "RST", "FIN", "PSH", "URG", "ECE", "CWR")
# pkg/monitor/api/files.go; ids above 100 are headers, which say nothing of the program.
_FILES = {
    "1": "bpf_host.c",
    "2": "bpf_lxc.c",
    "3": "bpf_overlay.c",
    "4": "bpf_xdp.c",
    "5": "bpf_sock.c",
    "6": "bpf_network.c",
    "7": "bpf_wireguard.c",
}
_LAYERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmpv4": ICMP, "icmpv6": ICMPV6}


def event(line: bytes, number: int) -> MonitorEvent | None:
    """Parse one line of the output.

    Args:
        line: without its newline.
        number: 1-based, for errors.

    Returns:
        The event; None for a line that is no trace, drop or policy verdict.

    Raises:
        ParseError: the line begins like an event, but is malformed.
    """
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ParseError(SOURCE, number, "not UTF-8 text") from None
    if text.startswith("{"):
        return _json_event(line, number)
    if text.startswith(_DROP):
        return _drop(text, number)
    if text.startswith(_VERDICT):
        return _verdict(text, number)
    if text.startswith(("-> ", "<- ", "unknown trace")) and _FLOW in text:
        return _trace(text, number)
    return None


def _trace(text: str, number: int) -> MonitorEvent:
    """Parse `-> stack flow 0x… , identity a->b state new ifindex eth0 orig-ip 0.0.0.0: …`."""
    summary, _, rest = text.partition(_FLOW)
    # A word between summary and flow says that the packet is encrypted.
    return _flow_event("trace", summary.removesuffix(" encrypted").rstrip(), rest, number)


def _drop(text: str, number: int) -> MonitorEvent:
    """Parse `xx drop (Policy denied) flow 0x… to endpoint 0, …, identity a->b: …`."""
    reason, separator, rest = text.removeprefix(_DROP).partition(f"){_FLOW}")
    if not separator:
        raise ParseError(SOURCE, number, "a drop without its flow")
    return _flow_event("drop", reason, rest, number)


def _flow_event(kind: str, summary: str, text: str, number: int) -> MonitorEvent:
    fields, connection = _split_event(text, number)
    flow, flags = _connection(connection, number)
    source, destination = _identities(fields.get("identity", ""), number)
    original = address(fields["orig-ip"], SOURCE, number) if "orig-ip" in fields else None
    return MonitorEvent(
        kind=kind,
        summary=summary,
        flow=flow,
        tcp_flags=flags,
        icmp=echo_of(connection),
        source_identity=source[0],
        destination_identity=destination[0],
        source_label=source[1],
        destination_label=destination[1],
        state=fields.get("state", ""),
        device=_device(fields.get("ifindex", "")),
        original_address=None if original is None or original.is_unspecified else original,
        code=_code(fields.get("file", "")),
    )


def _verdict(text: str, number: int) -> MonitorEvent:
    """Parse `Policy verdict log: flow 0x… local EP ID 1, remote ID world, proto 6, egress, …`."""
    fields = text.split(", ")
    at = next((i for i, field in enumerate(fields) if field.startswith("match ")), None)
    if at is None:
        raise ParseError(SOURCE, number, "a verdict without its match")
    action = direction = remote = ""
    protocol = UNKNOWN_PROTOCOL
    for field in fields[:at]:
        name, _, value = field.rpartition(" ")
        if name == "action":
            action = value
        elif name == "remote ID":
            remote = value
        elif name == "proto":
            protocol = integer(value, SOURCE, number, most=255)
        elif field in ("ingress", "egress"):
            direction = field
        elif name == "ingress":  # before 1.9: `ingress true`
            direction = "ingress" if value == "true" else "egress"
    if not action or not direction:
        raise ParseError(SOURCE, number, "a verdict without action or direction")
    flow, flags = _connection(", ".join(fields[at + 1 :]), number, protocol)
    identity, label = _identity(remote, number)
    inwards = direction == "ingress"
    return MonitorEvent(
        kind="policy-verdict",
        summary=action,
        flow=flow,
        tcp_flags=flags,
        icmp=echo_of(text),
        source_identity=identity if inwards else 0,
        destination_identity=0 if inwards else identity,
        source_label=label if inwards else "",
        destination_label="" if inwards else label,
        direction=direction,
    )


def _split_event(text: str, number: int) -> tuple[dict[str, str], str]:
    """Return the words before the connection, as names and values, and the connection.

    Only the colon before the connection has a blank behind it: `orig-ip ::: [fd00::1]:80 -> …`.
    """
    prefix, separator, connection = text.partition(": ")
    if not separator:
        raise ParseError(SOURCE, number, "an event without its connection")
    words = prefix.replace(",", " ").split()
    return dict(pairwise(words)), connection


def _identities(text: str, number: int) -> tuple[tuple[int, str], tuple[int, str]]:
    source, _, destination = text.partition("->")
    return _identity(source, number), _identity(destination, number)


def _identity(text: str, number: int) -> tuple[int, str]:
    """Return (number, "") of an identity, or (0, name) of a reserved identity with a name."""
    if text.isascii() and text.isdigit():
        return integer(text, SOURCE, number, most=_LARGEST_IDENTITY), ""
    return 0, text


def _device(text: str) -> str:
    """Return a device's name; "" for the number of drops and of packets without a device."""
    return "" if text.isdigit() else text


def _code(text: str) -> str:
    """Return the place in Cilium's source of a drop; up to 1.13 the file is a number."""
    name, _, line = text.partition(":")
    return f"{_FILES.get(name, name)}:{line}" if line else ""


def _connection(
    text: str, number: int, protocol: int = UNKNOWN_PROTOCOL
) -> tuple[Flow | None, tuple[str, ...]]:
    """Return (flow, TCP flags) of `1.1.1.1:2 -> 3.3.3.3:4 tcp SYN, ACK` and its variants.

    Args:
        text: the connection; the flow of an overlay's outer packet behind it is left out.
        protocol: for a text that does not name it.
    """
    words = text.partition(_TUNNEL)[0].split()
    if len(words) < 3 or words[1] != "->":
        if words and words[0].startswith("["):  # `[unknown]`, `[error]`
            return None, ()
        raise ParseError(SOURCE, number, f"{quoted(text)} is no connection")
    source_text, destination_text, kind = words[0], words[2], words[3] if len(words) > 3 else ""
    if hardware_address(source_text):
        return None, ()
    known_protocol = _IPSEC.get(kind) or u8proto(kind) or protocol
    if has_ports(known_protocol) and kind:
        flags = tuple(word.rstrip(",") for word in words[4:]) if known_protocol == TCP else ()
        return Flow(
            known_protocol,
            *address_and_port(source_text, number, SOURCE),
            *address_and_port(destination_text, number, SOURCE),
        ), flags
    if kind in _IPSEC:  # no ports: `10.0.0.1: -> 10.0.0.2: IPsecESP`
        source_text, destination_text = (
            side.removesuffix(":").strip("[]") for side in (source_text, destination_text)
        )
    source, destination = (
        address(side, SOURCE, number) for side in (source_text, destination_text)
    )
    if known_protocol == ICMP or (
        kind and not known_protocol
    ):  # `icmp EchoRequest`; older versions only `EchoRequest`, `143(0)`
        known_protocol = ICMPV6 if source.version == 6 else ICMP
    return Flow(known_protocol, source, None, destination, None), ()


def echo_of(text: str) -> str:
    """Return `EchoRequest` or `EchoReply` where the text names one, else ""."""
    return next((kind for kind in ("EchoRequest", "EchoReply") if kind in text), "")


def _json_event(line: bytes, number: int) -> MonitorEvent | None:
    try:
        value = json_value(line, SOURCE)
    except ParseError as error:
        raise ParseError(SOURCE, number, error.problem) from None
    kind = js.text(value, "type")
    if kind not in ("trace", "drop"):
        return None
    summary = js.text(value, "traceSummary" if kind == "trace" else "reason")
    if not summary:
        raise ParseError(SOURCE, number, f"a {kind} without its summary")
    packet = js.dig(value, "summary")
    layer = js.text(packet, "tcp")
    echo = js.text(packet, "icmpv4")
    return MonitorEvent(
        kind=kind,
        summary=summary,
        flow=_json_flow(packet, number),
        tcp_flags=tuple(flag for flag in _TCP_FLAGS if f" {flag}=true" in layer),
        icmp=echo_of(echo or js.text(packet, "icmpv6")),
        source_identity=js.number(value, "srcLabel") or 0,
        destination_identity=js.number(value, "dstLabel") or 0,
        state=js.text(value, "state"),
        device=_device(js.text(value, "ifindex")),
        code=_code(f"{js.number(value, 'File') or ''}:{js.number(value, 'Line') or ''}"),
        seq=_number("Seq", layer or echo),
        ack=_number("Ack", layer),
    )


def _number(name: str, layer: str) -> int | None:
    """Return `Seq=5` of a dissected layer (gopacket's words); None where it is not there."""
    digits = dict(word.partition("=")[::2] for word in layer.split()).get(name, "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return None
    return int(digits)


def _json_flow(packet: Any, number: int) -> Flow | None:
    """Return the 5-tuple of a dissected packet; None when it is no IP packet."""
    source, destination = (js.address(js.text(packet, "l3", e)) for e in ("src", "dst"))
    if source is None or destination is None:
        return None
    layers = [name for name in _LAYERS if js.text(packet, name)]
    protocol = _LAYERS[layers[0]] if len(layers) == 1 else UNKNOWN_PROTOCOL
    if has_ports(protocol):
        ports = [
            integer(js.text(packet, "l4", side), SOURCE, number, most=0xFFFF)
            for side in ("src", "dst")
        ]
        return Flow(protocol, source, ports[0], destination, ports[1])
    return _echo_flow(protocol, source, destination, js.text(packet, "icmpv4"))


def _echo_flow(protocol: int, source: Address, destination: Address, layer: str) -> Flow:
    """Return the flow of an ICMP packet; an echo's identifier is the initiator's port."""
    fields = dict(word.partition("=")[::2] for word in layer.split())
    kind, digits = fields.get("TypeCode"), fields.get("Id", "")
    identifier = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else None
    return Flow(
        protocol,
        source,
        identifier if kind == "EchoRequest" else None,
        destination,
        identifier if kind == "EchoReply" else None,
    )
