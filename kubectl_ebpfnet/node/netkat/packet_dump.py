"""`-d`: a packet as a line, in the form that the original prints (gVisor's packet sniffer).

    recv tcp 127.0.0.1:44644 -> 127.0.0.1:80 len:0 id:a5ee flags: S seqnum: 1321663292 ack: 0 ...
    send arp 10.0.0.1 (02:00:00:00:00:01) -> 10.0.0.2 (00:00:00:00:00:00) valid:true

Sources: the examples in the original's README, RFC 791, 8200, 9293, 768, 792, 4443, 826. A captured
packet may be cut anywhere: a malformed packet has a line too, and raises nothing.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

_ETHERNET = 14
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_FLAGS = "FSRPAU"
_ICMP_WORDS = {
    0: "echo reply", 3: "destination unreachable", 4: "source quench", 5: "redirect", 8: "echo",
    11: "time exceeded", 12: "param problem",
}  # fmt: skip
_ICMPV6_WORDS = {
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "param problem",
    128: "echo", 129: "echo reply", 135: "neighbor solicitation", 136: "neighbor advertisement",
}  # fmt: skip


def line(frame: bytes, sent: bool) -> str:
    """Return the line of an Ethernet frame, without a newline."""
    way = "send" if sent else "recv"
    try:
        (kind,) = struct.unpack_from(">H", frame, 12)
        packet = frame[_ETHERNET:]
        if kind == _ARP:
            return f"{way} {_arp(packet)}"
        if kind == _IPV4:
            return f"{way} {_ipv4(packet)}"
        if kind == _IPV6:
            return f"{way} {_ipv6(packet)}"
        return f"{way} unknown network protocol {kind:#06x} len:{len(packet)}"
    except (struct.error, ValueError, IndexError):
        return f"{way} malformed packet len:{len(frame)}"


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _arp(packet: bytes) -> str:
    _, protocol, hard, soft, _ = struct.unpack_from(">HHBBH", packet)
    valid = protocol == _IPV4 and (hard, soft) == (6, 4) and len(packet) >= 28
    sender, target = ip_address(packet[14:18]), ip_address(packet[24:28])
    return (
        f"arp {sender} ({_mac(packet[8:14])}) -> {target} ({_mac(packet[18:24])})"
        f" valid:{str(valid).lower()}"
    )


def _ipv4(packet: bytes) -> str:
    length, ident, fragment = struct.unpack_from(">HHH", packet, 2)
    header = (packet[0] & 0x0F) * 4
    # The length is 0 before segmentation (BIG TCP): then the packet is all of the data.
    payload = (length or len(packet)) - header
    source, target = ip_address(packet[12:16]), ip_address(packet[16:20])
    return _transport(
        packet[9], packet[header:], str(source), str(target), payload, ident, fragment & 0x1FFF
    )


def _ipv6(packet: bytes) -> str:
    payload, kind = struct.unpack_from(">HB", packet, 4)
    source, target = ip_address(packet[8:24]), ip_address(packet[24:40])
    rest, ident, fragment = packet[40:], 0, 0
    payload = payload or len(rest)
    while kind in (0, 43, 44, 60):
        size = 8 if kind == 44 else (rest[1] + 1) * 8
        if kind == 44:
            fragment, ident = struct.unpack_from(">HI", rest, 2)
            fragment >>= 3
        kind, rest, payload = rest[0], rest[size:], payload - size
    return _transport(kind, rest, f"[{source}]", f"[{target}]", payload, ident & 0xFFFF, fragment)


def _transport(
    kind: int, data: bytes, source: str, target: str, size: int, ident: int, fragment: int
) -> str:
    name = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", _ICMPV6: "icmp"}.get(kind)
    if name is None:
        return f"{source} -> {target} unknown transport protocol: {kind} len:{size} id:{ident:04x}"
    if fragment:
        return f"{name} {source} -> {target} len:{size} id:{ident:04x} fragment:{fragment * 8}"
    if name == "icmp":
        words = _ICMP_WORDS if kind == _ICMP else _ICMPV6_WORDS
        what = words.get(data[0], f"type {data[0]}")
        return f"icmp {source} -> {target} {what} len:{size} id:{ident:04x} code:{data[1]}"
    ports = struct.unpack_from(">HH", data)
    head = f"{name} {source}:{ports[0]} -> {target}:{ports[1]}"
    if kind == _UDP:
        return f"{head} len:{size - 8} id:{ident:04x} xsum: {_word(data, 6):#x}"
    offset = (data[12] >> 4) * 4
    flags = "".join(letter for bit, letter in enumerate(_FLAGS) if data[13] >> bit & 1)
    sequence, acknowledged = struct.unpack_from(">II", data, 4)
    return (
        f"{head} len:{size - offset} id:{ident:04x} flags: {flags} seqnum: {sequence}"
        f" ack: {acknowledged} win: {_word(data, 14)} xsum:{_word(data, 16):#x}"
        f" options: {_options(data[20:offset], bool(data[13] & 2))}"
    )


def _word(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", data, at)[0])


def _options(data: bytes, syn: bool) -> str:
    """Return the TCP options as Go prints a struct, of a SYN or of another segment."""
    mss, scale, permitted, stamps = 536, -1, False, (0, 0)
    stamped = False
    blocks: list[str] = []
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        size = data[1]
        if size < 2:
            break
        kind, value, data = data[0], data[2:size], data[size:]
        if kind == 2:
            mss = _word(value, 0)
        elif kind == 3:
            scale = value[0]
        elif kind == 4:
            permitted = True
        elif kind == 5:
            edges = struct.unpack_from(f">{len(value) // 4}I", value)
            blocks = [f"{{{a} {b}}}" for a, b in zip(edges[::2], edges[1::2], strict=False)]
        elif kind == 8:
            stamped, stamps = True, struct.unpack_from(">II", value)
    times = f"TS:{str(stamped).lower()} TSVal:{stamps[0]} TSEcr:{stamps[1]}"
    if syn:
        return f"{{MSS:{mss} WS:{scale} {times} SACKPermitted:{str(permitted).lower()}}}"
    return f"{{{times} SACKBlocks:[{' '.join(blocks)}]}}"
