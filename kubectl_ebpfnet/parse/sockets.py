"""The sockets of a network namespace that new senders may reach, by awk or grep of /proc/net.

    /proc/net/tcp:   0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 …
    file             sl local address remote address st tx_queue:rx_queue

Of a socket in LISTEN, rx_queue is the number of connections that wait for accept(); how many may is
not there, nor IPV6_V6ONLY, nor SO_BINDTODEVICE. Addresses are 32 bit words in the byte order of the
host, assumed to be little endian (procfs.py).

Sources: Linux net/ipv4/tcp_ipv4.c (get_tcp4_sock), net/ipv6/tcp_ipv6.c (get_tcp6_sock),
net/ipv4/udp.c (udp4_format_sock), net/ipv6/datagram.c (__ip6_dgram_sock_seq_show),
net/core/sock.c (proto_seq_show), include/net/tcp_states.h. Verified with Linux 6.18.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.catalogue import MOST_SOCKETS
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.untrusted import address as read_address
from kubectl_ebpfnet.parse._text import integer, lines, quoted

_NET = "/proc/net/"
_LISTEN, _LISTENS = "0A", "10"


def tcp(data: bytes) -> tuple[Listener, ...]:
    """Return the listeners of /proc/net/tcp and tcp6, each row behind its file's name. Raises
    ParseError, also where a file was not read, or has more of them than were brought home."""
    return _sockets(data, "tcp")


def udp(data: bytes) -> tuple[Listener, ...]:
    """Return the UDP sockets of /proc/net/udp and udp6, as `tcp`."""
    return _sockets(data, "udp")


def sctp(data: bytes) -> tuple[Listener, ...]:
    """Return the SCTP endpoints in LISTEN of /proc/net/sctp/eps, each once for every address that
    it has. Raises ParseError.

     ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
    ff11 ff22 2   10  29   3868   1000 42 10.0.0.1 10.0.1.1     (net/sctp/proc.c, sctp_eps_seq_show)
    """
    source = _NET + "sctp/eps"
    rows = [(number, text.split()) for number, text in lines(data, source) if text.strip()]
    if not rows or rows[0][1][:2] != ["ENDPT", "SOCK"]:
        raise ParseError(source, 1, "no heading: it was not read")
    found: list[Listener] = []
    for number, fields in rows[1:]:
        if len(fields) < 8:
            raise ParseError(source, number, f"not an endpoint: {quoted(' '.join(fields))}")
        if fields[3] != _LISTENS:
            continue
        port = integer(fields[5], source, number, most=0xFFFF)
        ends = (read_address(text.removeprefix("*"), source, number) for text in fields[8:])
        found += (Listener(end, port, span=Span(number)) for end in ends)
    return tuple(found)


def _sockets(data: bytes, protocol: str) -> tuple[Listener, ...]:
    found: dict[str, list[Listener]] = {}
    protocols: list[str] = []
    for number, text in lines(data, _NET + protocol):
        if not text:
            continue
        path, colon, row = text.partition(":")
        name, fields = path.removeprefix(_NET), row.split()
        if not colon or name == path or not fields:
            raise ParseError(_NET, number, f"not a line of a file there: {quoted(text)}")
        if name == "protocols":
            protocols.append(fields[0])
        elif fields[0] == "sl":
            found[name] = []
        elif name in found:
            found[name].append(_socket(fields, path, number))
        else:
            raise ParseError(path, number, f"no heading before {quoted(text)}")
    has_ipv6 = not protocols or f"{protocol.upper()}v6" in protocols
    for name in (protocol, protocol + "6") if has_ipv6 else (protocol,):
        if name not in found:
            raise ParseError(_NET + name, 0, "it was not read")
        if len(found[name]) >= MOST_SOCKETS:
            raise ParseError(_NET + name, 0, f"only {MOST_SOCKETS} of its sockets were read")
    return tuple(listener for listed in found.values() for listener in listed)


def _socket(fields: list[str], source: str, number: int) -> Listener:
    """Return the socket of a row."""
    if len(fields) < 5 or (source.startswith(_NET + "tcp") and fields[3] != _LISTEN):
        raise ParseError(source, number, f"not a socket that waits: {quoted(' '.join(fields))}")
    address, port = _end(fields[1], source, number)
    peer, peer_port = _end(fields[2], source, number)
    queue = integer(f"0x{fields[4].rpartition(':')[2]}", source, number)
    return Listener(
        address=address,
        port=port,
        waiting=queue if fields[3] == _LISTEN else 0,
        peer=peer if peer_port else None,
        peer_port=peer_port or None,
        span=Span(number),
    )


def _end(text: str, source: str, number: int) -> tuple[Address, int]:
    digits, _, port = text.partition(":")
    if len(digits) not in (8, 32):
        raise ParseError(source, number, f"{quoted(text)} is no address and port")
    words = (integer(f"0x{digits[at : at + 8]}", source, number) for at in range(0, len(digits), 8))
    raw = b"".join(word.to_bytes(4, "little") for word in words)
    address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, integer(f"0x{port}", source, number, most=0xFFFF)
