"""netkat's command line, for both ends of a session: words → a frozen request → words.

A command line that is typed on a node is parsed by kubectl_ebpfnet/node/netkat/__main__.py. Typed
elsewhere, kubectl_ebpfnet/cli/netkat_arguments.py parses it before anything is deployed, and sends
the node `words_of` the request, which the node parses to the same request.

The options are the original's (aojea/netkat: -l -u -d -p -i -w and their long forms, one dash or
two, as Go's flag package reads them) and ours. argparse is not used: starting it takes longer than
connecting does. Each import here delays netkat's start on the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netkat import values

USAGE = """\
usage: netkat [options] HOST PORT [--exec -- CMD...]

Netcat that this host's netfilter, sockets and CNI do not see. With -l, HOST and
PORT are the address (0.0.0.0 or :: for all of the device's) and the port to
listen on.

  -l, --listen            wait for a client
  -k, --keep-open         wait for the next one too
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
    "v": "verbose", "verbose": "verbose", "k": "keep", "keep-open": "keep", "exec": "run",
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
    """The task of one netkat.

    Attributes:
        host: the peer's name or address; with `listen` the address to bind.
        port: the peer's; with `listen` the one to bind.
        version: 4, 6, or 0 for either.
        source_port: the local port, 0 for any.
        via: the next hop's address, "" for the route's.
        via_mac: its MAC instead, 6 bytes, or b"".
        wait: seconds; `wait_given` when the command line has -w.
        terminal: stdin comes from a terminal at the client, which says so.
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


def parse(words: list[str], *, nodes: bool = False) -> Request | None:
    """Parse the words of the command line.

    Args:
        words: the words after the program's name.
        nodes: whether --via may be `KIND/NAME`, which `via` then holds as it is.

    Returns:
        The request; None when the words ask for help.

    Raises:
        UsageError: names the option and what it needs.
    """
    options = _split(words)
    if options.has("help"):
        return None
    host, port = _operands(options.operands)
    if options.has("run") != bool(options.command):
        raise UsageError("--exec and -- CMD go together: netkat HOST PORT --exec -- CMD...")
    if options.has("only4") and options.has("only6"):
        raise UsageError("-4 and -6 exclude each other: leave one of them out")
    via = options.values.get("via", "")
    mac = values.mac(via)
    request = Request(
        host=host,
        port=values.port(port, "udp" if options.has("udp") else "tcp"),
        listen=options.has("listen"),
        keep=options.has("keep"),
        udp=options.has("udp"),
        version=4 if options.has("only4") else 6 if options.has("only6") else 0,
        source=options.values.get("source", ""),
        source_port=values.number("-p", options.values.get("port", "0"), 65535),
        interface=options.values.get("interface", ""),
        via="" if mac else via,
        via_mac=mac,
        mark=values.number("--mark", options.values.get("mark", "0"), 0xFFFFFFFF),
        wait=values.seconds("-w", options.values.get("wait", "5")),
        wait_given="wait" in options.values,
        half_close=options.has("half_close"),
        connect_only=options.has("connect_only"),
        debug=options.has("debug"),
        pcap=options.values.get("pcap", ""),
        verbose=options.has("verbose"),
        terminal=options.has("terminal"),
        command=tuple(options.command),
    )
    _check_together(request)
    _check_addresses(request, nodes=nodes)
    return request


def words_of(request: Request) -> list[str]:
    """Return words that `parse` reads as this request, with ports as numbers: a node may have no
    services(5)."""
    switches = {
        "--listen": request.listen, "--keep-open": request.keep, "--udp": request.udp,
        "-4": request.version == 4, "-6": request.version == 6, "-N": request.half_close,
        "-z": request.connect_only, "--debug": request.debug, "--verbose": request.verbose,
        "--terminal": request.terminal,
    }  # fmt: skip
    valued = {
        "--source": request.source, "--source-port": request.source_port,
        "--interface": request.interface,
        "--via": request.via or request.via_mac.hex(":"), "--mark": request.mark,
        "--wait": request.wait if request.wait_given else "", "--pcap": request.pcap,
    }  # fmt: skip
    words = [option for option, on in switches.items() if on]
    words += [f"{option}={value}" for option, value in valued.items() if value]
    words += [request.host, str(request.port)]
    return [*words, "--exec", "--", *request.command] if request.command else words


@dataclass(slots=True)
class _Options:
    """The words by sort: flags (the last of each counts), values, operands, the command."""

    flags: dict[str, bool] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def has(self, flag: str) -> bool:
        return self.flags.get(flag, False)


def _split(words: list[str]) -> _Options:
    options = _Options()
    rest = iter(words)
    for word in rest:
        if word == "--":
            (options.command if options.has("run") else options.operands).extend(rest)
        elif not word.startswith("-") or word == "-":
            options.operands.append(word)
        else:
            _option(options, word, rest)
            if options.has("run") and "--" not in words:
                raise UsageError("--exec needs -- before the program: --exec -- CMD...")
    return options


def _option(options: _Options, word: str, rest: Iterator[str]) -> None:
    """Take one option; read its value from `rest` where it is a word of its own."""
    short = not word.startswith("--")
    name, equals, value = word[1 if short else 2 :].partition("=")
    if name in _FLAGS:
        if equals and value.lower() not in (*_TRUE, *_FALSE):
            raise UsageError(f"{word}: this option is true or false")
        options.flags[_FLAGS[name]] = not equals or value.lower() in _TRUE
    elif name in _VALUES:
        if not equals:
            value = next(rest, "")
        if not value or (not equals and value[0] == "-" and value != "-"):
            found = f", and {value} is an option" if value else ""
            raise UsageError(f"{word} needs {_NEEDED[_VALUES[name]]}{found}")
        options.values[_VALUES[name]] = value
    elif short and name and not equals and all(letter in _FLAGS for letter in name):
        options.flags.update({_FLAGS[letter]: True for letter in name})
    elif short and name[:1] in ("p", "w", "i") and len(name) > 1 and not equals:
        options.values[_VALUES[name[0]]] = name[1:]
    else:
        raise UsageError(f"no such option: {word}", hint=_near(name))


def _near(name: str) -> str:
    from kubectl_ebpfnet.model.spelling import near  # for this alone

    known = [option for option in (*_FLAGS, *_VALUES) if len(option) > 1 and option != "terminal"]
    found = near(name, known)
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


def _check_together(request: Request) -> None:
    """Refuse options that exclude each other."""
    if request.command:
        _exclude(request, "--exec connects by itself", "-l", "-k", "-z")
    if request.listen:
        _exclude(request, "with -l, HOST and PORT are what is bound", "-z", "-p", "--source")
    if request.keep and not request.listen:
        raise UsageError("-k is for -l: add -l, or leave it out")
    if request.pcap == "-":
        raise UsageError("--pcap needs a file: stdout is what the peer sends")
    if "/" in request.interface or any(map(str.isspace, request.interface)):
        raise UsageError(f"-i {request.interface}: no device has such a name")


def _exclude(request: Request, why: str, *options: str) -> None:
    used = {
        "-l": request.listen, "-k": request.keep, "-z": request.connect_only,
        "-p": request.source_port, "--source": request.source,
    }  # fmt: skip
    wrong = [option for option in options if used[option]]
    if wrong:
        raise UsageError(f"{why}: leave out {' and '.join(wrong)}")


def _check_addresses(request: Request, *, nodes: bool) -> None:
    """Refuse addresses that no host can have, and addresses of two IP versions."""
    versions = [(f"-{request.version}", request.version)] if request.version else []
    peer = values.ip(request.host)
    if peer is not None:
        if peer.is_unspecified and not request.listen:
            raise UsageError(f"HOST {request.host} is for -l: a peer's address is needed")
        versions.append((f"HOST {request.host}", peer.version))
    via = "" if nodes and "/" in request.via else request.via
    for option, text in (("--source", request.source), ("--via", via)):
        if text:
            versions.append((f"{option} {text}", values.host_address(option, text).version))
    for what, version in versions[1:]:
        if version != versions[0][1]:
            raise UsageError(
                f"{versions[0][0]} and {what} are of different IP versions; one is needed"
            )
