"""netkat's command line, for both ends of a session: words → a frozen request → words.

Who types on a node is read there (kubectl_ebpfnet/node/netkat/__main__.py). Who types elsewhere is
read there, before anything is deployed (kubectl_ebpfnet/cli/netkat_arguments.py), and the node is
sent `spelling`, which it reads as the same request.

The options are the original's (aojea/netkat: -l -u -d -p -i -w and their long forms, one dash or
two, as Go's flag package reads them) and ours. argparse is not used: starting it takes longer than
connecting does. What is imported here, the node waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.netkat import values

USAGE = """\
usage: netkat [options] HOST PORT [--exec -- CMD...]

Netcat that this host's netfilter, sockets and CNI do not see. With -l, HOST and
PORT are the address (0.0.0.0 or :: for all of the device's) and the port to
listen on.

  -l, --listen            wait for a client
  -k, --keep              wait for the next one too
  -u, --udp               UDP instead of TCP
  -4, -6                  IPv4 or IPv6 only
  -p, --source-port N     local port
      --source ADDRESS    local address
  -i, --interface NAME    device
      --via ADDRESS|MAC   next hop, on the link
      --mark N            fwmark, for routes and programs
  -w, --wait SECONDS      to connect, and of silence after the end of input or
                          of the peer's (5); when it is given, of silence at
                          any time and for a client too
  -N                      half-close at the end of input, and wait for the
                          peer's end
  -z, --zero              connect only
  -d, --debug             print each packet
      --pcap FILE         write each packet
  -v, --verbose           say what is done
      --exec -- CMD...    run a program in there
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
_NEEDED = {
    "port": "a port", "interface": "the name of a device", "wait": "a number of seconds",
    "via": "an IP address or a MAC", "source": "an IP address", "mark": "a number",
    "pcap": "a file",
}  # fmt: skip
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


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

    @property
    def ip_version(self) -> int:
        """4 or 6 where -4, -6 or an address says so; 0 where only a resolver can."""
        for address in map(values.ip, (self.host, self.source)):
            if address is not None and not self.version:
                return address.version
        return self.version


def request(words: list[str], *, nodes: bool = False) -> Request | None:
    """Read the words. None: help was asked for.

    Args:
        words: what follows the program's name.
        nodes: whether --via may be `KIND/NAME`; `via` is just that then.

    Raises:
        UsageError: names the option and says what it needs.
    """
    said = _split(words)
    if said.has("help"):
        return None
    host, port = _operands(said.operands)
    if said.has("run") != bool(said.command):
        raise UsageError("--exec and -- CMD go together: netkat HOST PORT --exec -- CMD...")
    if said.has("only4") and said.has("only6"):
        raise UsageError("-4 and -6 exclude each other: leave one of them out")
    via = said.values.get("via", "")
    mac = values.mac(via)
    made = Request(
        host=host,
        port=values.port(port, "udp" if said.has("udp") else "tcp"),
        listen=said.has("listen"),
        keep=said.has("keep"),
        udp=said.has("udp"),
        version=4 if said.has("only4") else 6 if said.has("only6") else 0,
        source=said.values.get("source", ""),
        source_port=values.number("-p", said.values.get("port", "0"), 65535),
        interface=said.values.get("interface", ""),
        via="" if mac else via,
        via_mac=mac,
        mark=values.number("--mark", said.values.get("mark", "0"), 0xFFFFFFFF),
        wait=values.seconds("-w", said.values.get("wait", "5")),
        wait_given="wait" in said.values,
        half_close=said.has("half_close"),
        connect_only=said.has("connect_only"),
        debug=said.has("debug"),
        pcap=said.values.get("pcap", ""),
        verbose=said.has("verbose"),
        terminal=said.has("terminal"),
        command=tuple(said.command),
    )
    _check_together(made)
    _check_addresses(made, nodes=nodes)
    return made


def spelling(made: Request) -> list[str]:
    """Words that `request` reads as this one: for a node, which may know no service's name."""
    switches = {
        "--listen": made.listen, "--keep": made.keep, "--udp": made.udp, "-4": made.version == 4,
        "-6": made.version == 6, "-N": made.half_close, "-z": made.connect_only,
        "--debug": made.debug, "--verbose": made.verbose, "--terminal": made.terminal,
    }  # fmt: skip
    valued = {
        "--source": made.source, "--source-port": made.source_port, "--interface": made.interface,
        "--via": made.via or made.via_mac.hex(":"), "--mark": made.mark,
        "--wait": made.wait if made.wait_given else "", "--pcap": made.pcap,
    }  # fmt: skip
    words = [option for option, on in switches.items() if on]
    words += [f"{option}={value}" for option, value in valued.items() if value]
    words += [made.host, str(made.port)]
    return [*words, "--exec", "--", *made.command] if made.command else words


@dataclass(slots=True)
class _Options:
    """Words told apart: flags (as they stood last), values, operands, what follows --exec --."""

    flags: dict[str, bool] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def has(self, flag: str) -> bool:
        return self.flags.get(flag, False)


def _split(words: list[str]) -> _Options:
    said = _Options()
    rest = iter(words)
    for word in rest:
        if word == "--":
            (said.command if said.has("run") else said.operands).extend(rest)
        elif not word.startswith("-") or word == "-":
            said.operands.append(word)
        else:
            _option(said, word, rest)
            if said.has("run") and "--" not in words:
                raise UsageError("--exec needs -- before the program: --exec -- CMD...")
    return said


def _option(said: _Options, word: str, rest: Iterator[str]) -> None:
    """One option; its value is out of `rest` where it is a word of its own."""
    short = not word.startswith("--")
    name, equals, value = word[1 if short else 2 :].partition("=")
    if name in _FLAGS:
        if equals and value.lower() not in (*_TRUE, *_FALSE):
            raise UsageError(f"{word}: this option is true or false")
        said.flags[_FLAGS[name]] = not equals or value.lower() in _TRUE
    elif name in _VALUES:
        if not equals:
            value = next(rest, "")
        if not value or (not equals and value[0] == "-" and value != "-"):
            found = f", and {value} is an option" if value else ""
            raise UsageError(f"{word} needs {_NEEDED[_VALUES[name]]}{found}")
        said.values[_VALUES[name]] = value
    elif short and name and not equals and all(letter in _FLAGS for letter in name):
        said.flags.update({_FLAGS[letter]: True for letter in name})
    elif short and name[:1] in ("p", "w", "i") and len(name) > 1 and not equals:
        said.values[_VALUES[name[0]]] = name[1:]
    else:
        raise UsageError(f"no such option: {word}", hint=_near(name))


def _near(name: str) -> str:
    import difflib  # slow, and for this alone

    known = [one for one in (*_FLAGS, *_VALUES) if len(one) > 1 and one != "terminal"]
    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean --{found[0]}?" if found else ""


def _operands(operands: list[str]) -> tuple[str, str]:
    if len(operands) != 2:
        found = f" ({' '.join(operands)})" if operands else ""
        if any(word.startswith("-") for word in operands):
            hint = "options stand before --"
        elif len(operands) == 1 and ":" in operands[0]:
            hint = "HOST and PORT are words of their own, and an address needs no brackets"
        else:
            hint = ""
        count = f"two operands are needed, HOST and PORT, not {len(operands)}{found}"
        raise UsageError(count, hint=hint)
    return values.host(operands[0]), operands[1]


def _check_together(made: Request) -> None:
    """What excludes what."""
    if made.command:
        _leave_out(made, "--exec connects by itself", "-l", "-k", "-z")
    if made.listen:
        _leave_out(made, "with -l, HOST and PORT are what is bound", "-z", "-p", "--source")
    if made.keep and not made.listen:
        raise UsageError("-k, --keep is for -l: add -l, or leave it out")
    if made.pcap == "-":
        raise UsageError("--pcap needs a file: stdout is what the peer sends")
    if "/" in made.interface or any(map(str.isspace, made.interface)):
        raise UsageError(f"-i {made.interface}: no device has such a name")


def _leave_out(made: Request, why: str, *options: str) -> None:
    given = {
        "-l": made.listen, "-k": made.keep, "-z": made.connect_only, "-p": made.source_port,
        "--source": made.source,
    }  # fmt: skip
    wrong = [option for option in options if given[option]]
    if wrong:
        raise UsageError(f"{why}: leave out {' and '.join(wrong)}")


def _check_addresses(made: Request, *, nodes: bool) -> None:
    """Addresses that are none or nobody's, and those that are of two IP versions."""
    told = [(f"-{made.version}", made.version)] if made.version else []
    peer = values.ip(made.host)
    if peer is not None:
        if peer.is_unspecified and not made.listen:
            raise UsageError(f"HOST {made.host} is for -l: a peer's address is needed")
        told.append((f"HOST {made.host}", peer.version))
    via = "" if nodes and "/" in made.via else made.via
    for option, text in (("--source", made.source), ("--via", via)):
        if text:
            told.append((f"{option} {text}", values.one_hosts(option, text).version))
    for what, version in told[1:]:
        if version != told[0][1]:
            raise UsageError(f"{told[0][0]} and {what} are of different IP versions; one is needed")
