"""Read a destination as people type it: an address, an object, a name or a URL, without I/O.

IPv4 addresses are those of inet_aton(3), as ping, wget and curl read them: `1.1` is 1.0.0.1, `010`
is octal, `0x7f` hexadecimal. `[IPv6]:port` and URLs: RFC 3986 3.2. `PORT/PROTOCOL` as in Kubernetes
and /etc/services.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from kubectl_ebpfnet.cli.object_words import WORKLOADS, checked_name, shown, split
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ICMP, SCTP, TCP, UDP, Address

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "icmp": ICMP}
EXAMPLE = (
    "a destination is an address, pod/NAME, svc/NAME, node/NAME or a DNS name, with a port: "
    "e.g. 1.1.1.1:80, [2606:4700::1111]:80, svc/web:http, example.com:443"
)
# Scheme → default port; other schemes need a port in the URL.
_SCHEMES = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://([^/?#\\]*)")
_PORT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,16}", re.ASCII)
_THIS_NETWORK = ip_network("0.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a packet.

    Attributes:
        kind: `pod`, `service`, `node`, `address` or `name`.
        name: name of the object, or DNS name; "" for addresses.
        text: the destination without port and protocol.
        address: the address, None for other kinds.
        port: port number, None without a number.
        port_name: name of a Service's port, "" without a name.
        protocol: IANA number of `/udp` and the like, None without one.
        namespace: of `NAMESPACE/POD`, "" for other forms.
        note: how the word was read, where that may surprise.
    """

    kind: str
    name: str
    text: str
    address: Address | None = None
    port: int | None = None
    port_name: str = ""
    protocol: int | None = None
    namespace: str = ""
    note: str = ""


def destination(word: str) -> Destination:
    """Read an address, `pod/x`, `svc/x`, `node/x`, a DNS name or a URL, with or without a port and
    a protocol.

    Raises:
        UsageError: names the expected form, with an example.
    """
    if not word.strip():
        raise UsageError("the destination is empty", hint=EXAMPLE)
    if "://" in word:
        return _of_url(word)
    bare, protocol = _without_protocol(word)
    found = _of_object(bare) if "/" in bare else _of_host(word, bare)
    return replace(found, protocol=protocol)


def _of_url(word: str) -> Destination:
    """Return the destination of a client that opens this URL."""
    match = _URL.match(word)
    authority = match[2].rpartition("@")[2] if match else ""
    if match is None or not authority:
        raise UsageError(f"{shown(word)} is not a URL with a host", hint="e.g. http://example.com/")
    scheme = match[1].lower()
    found = _of_host(word, authority.removesuffix(":"))
    port = found.port or _SCHEMES.get(scheme)
    if port is None:
        raise UsageError(
            f"{shown(word)}: the port of {scheme}:// is not known", hint=f"write {found.text}:PORT"
        )
    return replace(found, port=port, protocol=UDP if scheme == "udp" else None)


def _without_protocol(word: str) -> tuple[str, int | None]:
    """Return the word without `/udp` or the like at its end, and the protocol's number."""
    head, slash, name = word.rpartition("/")
    # `default/udp` may be a pod: a protocol stands behind a port, an address or a longer name.
    if not slash or not re.search(r"[/:.]", head):
        if slash and head.isascii() and head.isdecimal() and name.lower() in PROTOCOLS:
            raise UsageError(
                f"{shown(word)} is a port without an address", hint=f"e.g. 1.1.1.1:{word}"
            )
        return word, None
    number = PROTOCOLS.get(name.lower())
    return (word, None) if number is None else (head, number)


def _of_object(word: str) -> Destination:
    head, _, tail = word.partition("/")
    if tail.isdecimal() and _address(word, head) is not None:
        raise UsageError(f"{shown(word)} is a network", hint=f"name one of its addresses: {head}")
    if re.search(r"[.:\[]", head):
        raise UsageError(
            f"{shown(word)}: {shown(tail)} is not a protocol",
            hint="one of: tcp, udp, sctp, icmp; a URL starts with http:// or https://",
        )
    found = split(word, EXAMPLE)
    if found.kind in WORKLOADS:
        raise UsageError(
            f"{shown(word)}: a {found.kind} cannot be a destination: it has many addresses",
            hint="name one of its pods, or its Service: svc/NAME",
        )
    if "/" in found.name:
        *_, last = found.name.split("/")
        raise UsageError(
            f"{shown(word)}: {shown(last)} is neither a protocol nor part of a name",
            hint="one of: tcp, udp, sctp, icmp; a namespace is given with --to-namespace",
        )
    name_word, colon, port_word = found.name.partition(":")
    name = checked_name(word, name_word)
    text = found.text.partition(":")[0]
    to = Destination(found.kind, name, text, namespace=found.namespace)
    if not colon:
        return to
    is_service = found.kind == "service"
    if is_service and _PORT_NAME.fullmatch(port_word):
        return replace(to, port_name=port_word)
    return replace(to, port=_port(word, port_word, named=is_service))


def _of_host(word: str, host: str) -> Destination:
    """Return an address or a DNS name, with or without a port.

    Args:
        word: as typed, for errors.
        host: what is left of it without scheme, path and protocol.
    """
    if host.startswith("["):
        return _bracketed(word, host)
    address = _address(word, host)
    if address is not None:
        return _to_address(host, address)
    bare, colon, port_word = host.rpartition(":")
    if not colon:
        return Destination("name", _dns_name(word, host), host)
    port = _port(word, port_word)
    address = _address(word, bare)
    if isinstance(address, IPv6Address):
        raise UsageError(
            f"{shown(word)}: an IPv6 address with a port needs brackets: [{bare}]:{port}"
        )
    if address is not None:
        return replace(_to_address(bare, address), port=port)
    return Destination("name", _dns_name(word, bare), bare, None, port)


def _to_address(text: str, address: Address) -> Destination:
    """Return an address as a destination; refuse those that no packet can have."""
    if address.is_unspecified or address in _THIS_NETWORK:
        hint = "Linux connects it to the sender itself: 127.0.0.1 or [::1]"
        if text.isdecimal() and text != "0":
            hint = f"a port follows its address: 1.1.1.1:{text}"
        read = "" if text == str(address) else f", read as {address},"
        raise UsageError(f"{shown(text)}{read} is no host's address", hint=hint)
    note = ""
    if address.version == 4 and ":" not in text and text != str(address):
        note = f"{text}, read as ping, wget and curl do (inet_aton)"
        if re.search(r"(^|\.)0[0-9]", text):
            note += "; a leading 0 means octal, and programs in Go refuse it"
    return Destination("address", "", str(address), address, note=note)


def _bracketed(word: str, host: str) -> Destination:
    inner, bracket, rest = host[1:].partition("]")
    address = _address(word, inner) if ":" in inner else None
    if not bracket or address is None or (rest and rest[0] != ":"):
        raise UsageError(f"{shown(word)} is not [IPv6]:PORT", hint="e.g. [2606:4700::1111]:80")
    port = _port(word, rest[1:]) if rest else None
    return replace(_to_address(inner, address), port=port)


def _address(word: str, text: str) -> Address | None:
    """Return the address that a text is, None where it is none.

    Raises:
        UsageError: it has a zone.
    """
    if ":" not in text:
        return _inet_aton(text)
    bare, zone, _ = text.partition("%")
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return None
    if zone:
        raise UsageError(
            f"{shown(word)}: a zone names a device of one machine: such a packet stays on its link",
            hint=f"leave out the zone: {bare}; path follows what is routed",
        )
    # A socket sends IPv4 to an IPv4-mapped address (RFC 4291 2.5.5.2).
    return address.ipv4_mapped or address


def _inet_aton(text: str) -> IPv4Address | None:
    """Return the IPv4 address of one to four numbers: the last one fills the rest."""
    words = text.split(".")
    if len(words) > 4 or not all(map(_NUMBER.fullmatch, words)):
        return None
    numbers = []
    for word in words:
        # The bases of strtoul(3) with base 0.
        octal = len(word) > 1 and word[0] == "0" and word[1] not in "xX"
        if octal and not set(word) <= set("01234567"):
            return None
        numbers.append(int(word, 8 if octal else 16 if word[1:2] in ("x", "X") else 10))
    *bytes_, last = numbers
    if any(number > 255 for number in bytes_) or last >= 256 ** (4 - len(bytes_)):
        return None
    value = last
    for index, number in enumerate(bytes_):
        value += number << (24 - 8 * index)
    return IPv4Address(value)


def _port(word: str, port_word: str, *, named: bool = False) -> int:
    if port_word.isascii() and port_word.isdecimal() and len(port_word) <= 5:
        number = int(port_word)
        if 1 <= number <= 65535:
            return number
    what = "a number from 1 to 65535" + (" or the name of a Service's port" if named else "")
    raise UsageError(f"{shown(word)}: {shown(port_word)} is not a port", hint=f"a port is {what}")


def _dns_name(word: str, name: str) -> str:
    bare = name.removesuffix(".")
    labels = bare.split(".")
    if re.fullmatch(r"[0-9.]+", name):
        raise UsageError(f"{shown(word)} is not an IPv4 address", hint=EXAMPLE)
    if "." in name and name.count(":") == 1:
        raise UsageError(f"{shown(word)} has two ports", hint="e.g. 1.1.1.1:80, svc/web:http")
    if ":" in name:
        raise UsageError(f"{shown(word)} is not an IPv6 address", hint="e.g. [2606:4700::1111]:80")
    if not name.isascii():
        raise UsageError(
            f"{shown(word)} is not a DNS name", hint="use its ASCII form, which starts with xn--"
        )
    if len(bare) > 253 or not all(map(_DNS_LABEL.fullmatch, labels)):
        raise UsageError(f"{shown(word)} is not a destination", hint=EXAMPLE)
    return name
