"""netkat's own words, read before a cluster is asked.

The node reads them by the same grammar (kubectl_ebpfnet/model/netkat/request.py). Ours alone are a
next hop `--via node/NAME`, which becomes that node's address, `--pcap FILE`, a file of this
machine, and a port's name, which is sent as its number: the image knows none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import CONNECTION, NODES
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.netkat import request as netkat
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.model.protocol.frames import PCAP_FD

PCAP = f"/proc/self/fd/{PCAP_FD}"
HELP = f"""{netkat.USAGE}
With `kubectl ebpfnet netkat node/NAME`, "this host" is that node: HOST is
resolved there, and CMD runs in the node pod. --via node/OTHER is that node's
address. --pcap writes a file where kubectl runs, and a PORT's name (http) is
looked up there.
"""
_VIA = "e.g. --via node/n2, --via 10.0.0.1 or --via 02:00:00:00:00:01"
_TIMEOUT = "--timeout"
_OURS = frozenset(s for flag in (*CONNECTION, *NODES) for s in flag.spellings) | {_TIMEOUT}


@dataclass(frozen=True, slots=True)
class NetkatWords:
    """What was said after node/NAME.

    Attributes:
        request: for the node, but for a next hop that is a node's name.
        via: that name, "" for none.
        pcap: the local file, "" for none.
    """

    request: Request
    via: str = ""
    pcap: str = ""

    def for_node(self, via: str, *, terminal: bool) -> tuple[str, ...]:
        """The words that the node is sent.

        Args:
            via: the next hop's address, where it was a node's name.
            terminal: whether stdin is one.
        """
        made = self.request
        made = replace(made, via=via or made.via, terminal=terminal or made.terminal)
        return tuple(netkat.spelling(made))


def behind(said: Sequence[str]) -> list[str]:
    """Words of the command line, `netkat` first → the same with `--` before node/NAME, so that what
    follows is left alone."""
    takes_value = {s for flag in (*CONNECTION, *NODES) if flag.metavar for s in flag.spellings}
    takes_value.add(_TIMEOUT)
    at = 1
    while at < len(said) and said[at].startswith("-") and said[at] != "--":
        number = said[at] in ("-v", "--v") and said[at + 1 : at + 2]
        if said[at] in takes_value or (number and number[0].isdecimal()):
            at += 1
        at += 1
    if at >= len(said) or said[at] == "--":
        return list(said)
    return [*said[:at], "--", *said[at:]]


def read(said: Sequence[str]) -> NetkatWords | None:
    """Read netkat's words. None: its help was asked for.

    Raises:
        UsageError: they are wrong; names the option and says what it needs.
    """
    try:
        for word in said:
            word.encode()
        request = netkat.request(list(said), nodes=True)
    except UnicodeEncodeError:
        raise UsageError("netkat: a word that is not UTF-8 cannot be sent to a node") from None
    except UsageError as error:
        raise UsageError(f"netkat: {error.message}", hint=_hint(error)) from None
    if request is None:
        return None
    via = _node(request.via) if "/" in request.via else ""
    return NetkatWords(replace(request, pcap=PCAP if request.pcap else ""), via, request.pcap)


def _node(said: str) -> str:
    try:
        place = arguments.target(said)
    except UsageError as error:
        raise UsageError(f"netkat: --via {error.message}", hint=_VIA) from None
    if place.kind != "node":
        raise UsageError(f"netkat: --via {said}: not a node", hint=_VIA)
    return place.name


def _hint(error: UsageError) -> str:
    named = {word.strip(",:").partition("=")[0] for word in error.message.split()}
    for flag in sorted(named & _OURS):
        return f"the {flag} of `kubectl ebpfnet` stands before node/NAME"
    if error.message.startswith("--via "):
        return _VIA
    return error.hint or "`kubectl ebpfnet netkat node/NAME -h` shows netkat's options"
