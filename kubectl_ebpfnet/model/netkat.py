"""netkat's command line: words in, a frozen request out.

The options are the original's (aojea/netkat: -l -u -d -p -i -w and their long forms, one dash or
two, as Go's flag package reads them) and ours. argparse is not used: starting it takes longer than
connecting does.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, fields
from typing import Any

from kubectl_ebpfnet.errors import UsageError

USAGE = """\
usage: netkat [options] HOST PORT [--exec -- CMD...]

Netcat that this host's netfilter, sockets and CNI do not see. With -l, HOST and PORT are the
address (0.0.0.0 or :: for all of the device's) and the port to listen on.

  -l, --listen             wait for a client        -k, --keep    wait for the next one too
  -u, --udp                UDP instead of TCP       -4, -6        IPv4 or IPv6 only
  -p, --source-port N      local port               --source ADDRESS
  -i, --interface NAME     device                   --via ADDRESS|MAC   next hop, on the link
  -w, --wait SECONDS       to connect, and of silence after the end of input or of the peer's (5);
                           when it is given, of silence at any time and for a client too
  -N                       half-close at the end of input, and wait for the peer's end
  -z                       connect only             --mark N      fwmark, for routes and programs
  -d, --debug              print each packet        --pcap FILE   write each packet
  -v, --verbose            say what is done         --exec -- CMD...   run a program in there
"""
_FLAGS = {
    "l": "listen", "listen": "listen", "u": "udp", "udp": "udp", "d": "debug", "debug": "debug",
    "4": "only4", "6": "only6", "N": "half_close", "z": "connect_only", "zero": "connect_only",
    "v": "verbose", "verbose": "verbose", "k": "keep", "keep": "keep", "exec": "run",
    "h": "help", "help": "help",
    "terminal": "terminal",
}  # fmt: skip
_VALUES = {
    "p": "port", "source-port": "port", "i": "interface", "interface": "interface",
    "w": "wait", "wait": "wait", "via": "via", "source": "source", "mark": "mark", "pcap": "pcap",
}  # fmt: skip
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_MAC = re.compile(r"[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2}){5}")


@dataclass(frozen=True, slots=True)
class Request:
    """What netkat is to do.

    Attributes:
        host: the peer's name or address; with `listen` the address to bind.
        port: the peer's; with `listen` the one to bind.
        version: 4, 6, or 0 for either.
        source_port: the local port, 0 for any.
        via: the next hop's address, "" for the route's.
        via_mac: its MAC instead, 6 bytes, or b"".
        wait: seconds; `wait_given` when it was asked for.
        terminal: stdin comes from a terminal elsewhere, which a client says that has one.
        command: a program to run instead of copying, and its words.
    """

    host: str
    port: int
    listen: bool = False
    keep: bool = False
    udp: bool = False
    version: int = 0
    source: str = ""
    source_port: int = 0
    interface: str = ""
    via: str = ""
    via_mac: bytes = b""
    mark: int = 0
    wait: float = 5.0
    wait_given: bool = False
    half_close: bool = False
    connect_only: bool = False
    debug: bool = False
    pcap: str = ""
    verbose: bool = False
    terminal: bool = False
    command: tuple[str, ...] = ()


def request(words: list[str]) -> Request | None:
    """Read the words. None: help was asked for. Raises UsageError."""
    said, operands, command = _split(words)
    if "help" in said:
        return None
    if len(operands) != 2:
        raise UsageError(f"two operands are needed, HOST and PORT, not {len(operands)}")
    if bool(said.pop("run", False)) != bool(command):
        raise UsageError("--exec and -- CMD go together: netkat HOST PORT --exec -- CMD...")
    only4, only6 = said.pop("only4", False), said.pop("only6", False)
    if only4 and only6:
        raise UsageError("-4 and -6 exclude each other")
    mac = said.get("via", "")
    if _MAC.fullmatch(mac):
        said["via_mac"] = bytes(int(part, 16) for part in re.split("[:-]", said.pop("via")))
    if "wait" in said:
        said["wait"], said["wait_given"] = _seconds(said["wait"]), True
    if "mark" in said:
        said["mark"] = _number("--mark", said["mark"], 0xFFFFFFFF)
    if "port" in said:
        said["source_port"] = _number("-p", said.pop("port"), 65535)
    port = _port(operands[1], "udp" if said.get("udp") else "tcp")
    made = Request(
        host=operands[0], port=port, version=4 if only4 else 6 if only6 else 0,
        command=tuple(command), **{k: v for k, v in said.items() if k in _NAMES},
    )  # fmt: skip
    _check(made)
    return made


_NAMES = frozenset(field.name for field in fields(Request))


def _check(made: Request) -> None:
    if made.command and (made.listen or made.connect_only or made.keep):
        raise UsageError("--exec connects by itself: not with -l, -k or -z")
    if made.listen and (made.connect_only or made.source_port or made.source):
        raise UsageError("with -l, HOST and PORT are what is bound: not -z, -p or --source")
    for option, text in (("--source", made.source), ("--via", made.via)):
        if text:
            _address(option, text)
    if made.keep and not made.listen:
        raise UsageError("-k is for -l")


def _address(option: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{option} {text}: this is no IP address") from None


def _split(words: list[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """Options, operands, and what follows `--`."""
    said: dict[str, Any] = {}
    operands: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            following = list(rest)
            return (
                (said, operands, following) if "run" in said else (said, operands + following, [])
            )
        if not word.startswith("-") or word == "-":
            operands.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in _FLAGS:
            if equals and value.lower() not in (*_TRUE, *_FALSE):
                raise UsageError(f"{word}: this option is true or false")
            if not equals or value.lower() in _TRUE:
                said[_FLAGS[name]] = True
        elif name in _VALUES:
            found = value if equals else next(rest, None)
            if found is None:
                raise UsageError(f"{word} needs a value")
            said[_VALUES[name]] = found
        elif not word.startswith("--") and name and all(letter in _FLAGS for letter in name):
            said.update({_FLAGS[letter]: True for letter in name})
        elif not word.startswith("--") and name[:1] in ("p", "w", "i") and len(name) > 1:
            said[_VALUES[name[0]]] = word[2:]
        else:
            raise UsageError(f"no such option: {word}")
    return said, operands, []


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1
    if not 0 < value < 1e9:
        raise UsageError(f"-w {text}: a number of seconds above 0 is needed")
    return value


def _number(option: str, text: str, most: int) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise UsageError(f"{option} {text}: a number from 0 to {most} is needed")
    return value


def _port(text: str, protocol: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    try:
        return socket.getservbyname(text, protocol)
    except OSError:
        raise UsageError(f"{text}: no port, and no {protocol} service of this name") from None
