"""Single words of netkat's command line → values; UsageError says what is needed instead."""

from __future__ import annotations

import ipaddress
import socket

from kubectl_ebpfnet.errors import UsageError

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_HEX = frozenset("0123456789abcdefABCDEF")


def host(text: str) -> str:
    """A name, or an address, which may have a scope; what can be neither is refused."""
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
    """The peer's port: a number, or the name of a service of `tcp` or `udp`: services(5)."""
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
    """0 to `most`, in Python's spellings: 512, 0x200."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise UsageError(f"{option} {text}: a number from 0 to {most} is needed")
    return value


def seconds(option: str, text: str) -> float:
    """More than 0; `5s` is 5."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1
    if not 0 < value < 1e9:
        raise UsageError(f"{option} {text}: a number of seconds above 0 is needed")
    return value


def mac(text: str) -> bytes:
    """The 6 bytes of a MAC, b"" where it is none."""
    parts = text.replace("-", ":").split(":")
    if len(parts) == 6 and all(len(part) in (1, 2) and set(part) <= _HEX for part in parts):
        return bytes(int(part, 16) for part in parts)
    return b""


def ip(text: str) -> IP | None:
    """An address, which may have a scope; None for anything else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def one_hosts(option: str, text: str) -> IP:
    """An address that one host can have, without a scope."""
    address = ip(text)
    if address is None or address.is_unspecified or address.is_multicast:
        needed = "IP address or MAC" if option == "--via" else "IP address"
        raise UsageError(f"{option} {text}: the {needed} of one host is needed")
    if "%" in text:
        raise UsageError(
            f"{option} {text}: leave out %{text.partition('%')[2]}; -i says the device"
        )
    return address
