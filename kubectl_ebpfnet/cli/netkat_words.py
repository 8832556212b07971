"""netkat's own words, as far as they have to be understood here: the rest is netkat's affair.

Its options are kubectl_ebpfnet/model/netkat.py's, one dash or two. `--via node/NAME` becomes that
node's address, `--pcap FILE` a file of this machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from kubectl_ebpfnet.cli import words
from kubectl_ebpfnet.cli.options import CONNECTION, NODES
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.frames import PCAP_FD

PCAP = f"/proc/self/fd/{PCAP_FD}"
_VALUES = frozenset(
    ("p", "source-port", "i", "interface", "w", "wait", "via", "source", "mark", "pcap")
)
_FLAGS = frozenset("lud46Nzvkh")


@dataclass(frozen=True, slots=True)
class NetkatWords:
    """What was said after node/NAME.

    Attributes:
        words: for netkat; values of --via and --pcap that are ours are still in it.
        help: netkat's own help is asked for.
        version: of IP, 4, 6, or 0 when the words do not tell.
        via: name of the node that is the next hop, "" for none.
        via_at: its place in `words`.
        pcap: the local file, "" for none.
    """

    words: tuple[str, ...]
    help: bool = False
    version: int = 0
    via: str = ""
    via_at: int = 0
    pcap: str = ""

    def with_via(self, address: str) -> NetkatWords:
        """The next hop by its address."""
        at = self.via_at
        return replace(self, words=(*self.words[:at], address, *self.words[at + 1 :]))


def show_help() -> int:
    """Have netkat itself show its options, as it would on the node; its exit code."""
    argv = [sys.executable, "-m", "kubectl_ebpfnet.node.netkat", "-h"]
    return subprocess.run(argv, check=False).returncode  # noqa: S603  our own module


def behind(said: Sequence[str]) -> list[str]:
    """Words of the command line, `netkat` first → the same with `--` before node/NAME, so that what
    follows is left alone."""
    takes_value = {s for flag in (*CONNECTION, *NODES) if flag.metavar for s in flag.spellings}
    takes_value.add("--timeout")
    at = 1
    while at < len(said) and said[at].startswith("-") and said[at] != "--":
        number = said[at] in ("-v", "--v") and said[at + 1 : at + 2]
        if said[at] in takes_value or (number and number[0].isdecimal()):
            at += 1
        at += 1
    if at >= len(said) or said[at] == "--":
        return list(said)
    return [*said[:at], "--", *said[at:]]


def read(said: Sequence[str]) -> NetkatWords:
    """Read netkat's words.

    Raises:
        UsageError: HOST or PORT is missing, --via names no node, or --pcap no file.
    """
    out: list[str] = []
    options: dict[str, int] = {}  # name → place of its value in `out`
    operands: list[str] = []
    letters = ""
    rest = iter(said)
    for word in rest:
        if word == "--":
            following = list(rest)
            if "--exec" not in said and "-exec" not in said:
                operands += following
            out += [word, *following]
            break
        if not word.startswith("-") or word == "-":
            operands.append(word)
            out.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in _VALUES:
            found = [value] if equals else [one for one in (next(rest, None),) if one is not None]
            out += [f"--{name}", *found]
            options[name] = len(out) - 1
        else:
            out.append(word)
            letters += "h" if name == "help" else name if _FLAGS.issuperset(name) else ""
    made = NetkatWords(tuple(out), help="h" in letters)
    if made.help:
        return made
    if len(operands) != 2:
        raise UsageError(
            f"netkat: two operands are needed, HOST and PORT, not {len(operands)}",
            hint="`kubectl ebpfnet netkat node/NAME -h` shows its options",
        )
    made = replace(made, version=_version(letters, operands[0], _value(out, options, "source")))
    return _ours(made, options)


def _value(out: Sequence[str], options: dict[str, int], name: str) -> str:
    return out[options[name]] if name in options else ""


def _ours(made: NetkatWords, options: dict[str, int]) -> NetkatWords:
    """Take in what is not for netkat."""
    via = _value(made.words, options, "via")
    if "/" in via:
        place = words.place(via)
        if place.kind != "node":
            raise UsageError(f"--via {via}: not a node", hint="e.g. --via node/n1")
        made = replace(made, via=place.name, via_at=options["via"])
    if "pcap" in options:
        file, at = _value(made.words, options, "pcap"), options["pcap"]
        if file in ("", "-"):
            raise UsageError("--pcap needs a file: stdout is what the peer sends")
        made = replace(made, pcap=file, words=(*made.words[:at], PCAP, *made.words[at + 1 :]))
    return made


def _version(letters: str, host: str, source: str) -> int:
    for number in (4, 6):
        if str(number) in letters:
            return number
    for word in (host, source):
        try:
            return ip_address(word.partition("%")[0]).version
        except ValueError:
            continue
    return 0
