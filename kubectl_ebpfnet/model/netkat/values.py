"""Single words of netkat's command line → values; a UsageError names what is needed instead."""

from __future__ import annotations

import ipaddress
import socket

from kubectl_ebpfnet.errors import UsageError

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_HEX = frozenset("0123456789abcdefABCDEF")


def host(text: str) -> str:
    """Return a host's name or address (with or without a scope); refuse any other word."""
    if ip(text):
        return text
    needed = "an IP address or a name is needed"
    if text.startswith("[") or ":" in text:
        raise UsageError(f"HOST {text}: {needed}, without a port and without brackets")
    if not text or text.startswith("-") or "/" in text or any(map(str.isspace, text)):
        raise UsageError(f"HOST {text or repr(text)}: {needed}")
    if set(text) <= set("0123456789."):
        try:
            socket.inet_aton(text)  # 127.1 is an address too, for the resolver
        except OSError:
            raise UsageError(f"HOST {text}: {needed}") from None
    return text


def port(text: str, protocol: str) -> int:
    """Read the peer's port: a number, or a name from services(5) for `tcp` or `udp`."""
    if text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    try:
        return socket.getservbyname(text, protocol)
    except (OSError, ValueError):  # ValueError: it cannot be encoded
        raise UsageError(
            f"PORT {text or repr(text)}: a number from 1 to 65535 is needed, or the name of a"
            f" {protocol} service in /etc/services"
        ) from None


def number(option: str, text: str, most: int) -> int:
    """Read a whole number of at least 0, as Python spells it: 512, 0x200.

    Args:
        option: its name, for the error.
        text: the word.
        most: the largest number that is allowed.
    """
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise UsageError(f"{option} {text}: a number from 0 to {most} is needed")
    return value


def seconds(option: str, text: str) -> float:
    """Read a time above 0 in seconds; `5s` is 5."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1
    if not 0 < value < 1e9:
        raise UsageError(f"{option} {text}: a number of seconds above 0 is needed")
    return value


def mac(text: str) -> bytes:
    """Return the 6 bytes of a MAC, b"" when the text is not a MAC."""
    parts = text.replace("-", ":").split(":")
    if len(parts) == 6 and all(len(part) in (1, 2) and set(part) <= _HEX for part in parts):
        return bytes(int(part, 16) for part in parts)
    return b""


def ip(text: str) -> IP | None:
    """Return the address, which may have a scope; None when the text is not an address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_address(option: str, text: str) -> IP:
    """Read an address that a single host can have, without a scope."""
    address = ip(text)
    if address is None or address.is_unspecified or address.is_multicast:
        needed = "IP address or MAC" if option == "--via" else "IP address"
        raise UsageError(f"{option} {text}: the {needed} of one host is needed")
    if "%" in text:
        raise UsageError(
            f"{option} {text}: leave out %{text.partition('%')[2]}; -i says the device"
        )
    return address
