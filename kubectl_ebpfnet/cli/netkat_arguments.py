"""Read netkat's options before the cluster is contacted.

The node side parses the same grammar (kubectl_ebpfnet/model/netkat/request.py). Three words differ
on this side: `--via node/NAME` becomes that node's address, `--pcap FILE` is a local file, and a
port's name is sent as its number, since the image has no /etc/services.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.kubectl_flags import takes_value
from kubectl_ebpfnet.cli.with_flags import NODES
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
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
_NODE_FLAGS = {s: bool(flag.metavar) for flag in NODES for s in flag.spellings}
_NODE_FLAGS["--dry-run"] = False  # its value stands behind = alone
_FLAGS = {**takes_value(), **_NODE_FLAGS, _TIMEOUT: True}
"""Each flag before node/NAME, and whether it takes a value."""


@dataclass(frozen=True, slots=True)
class NetkatArguments:
    """The arguments after node/NAME.

    Attributes:
        request: netkat's request; its `via` is set unless the next hop is a node's name.
        via: name of the node that is the next hop, "" for none.
        pcap: local file to write packets to, "" for none.
    """

    request: Request
    via: str = ""
    pcap: str = ""

    def for_node(self, via: str, *, terminal: bool) -> tuple[str, ...]:
        """Return the words to send to the node.

        Args:
            via: address of the next hop, "" unless `--via node/NAME` was given.
            terminal: whether stdin is a terminal.
        """
        request = self.request
        request = replace(request, via=via or request.via, terminal=terminal or request.terminal)
        return tuple(netkat.words_of(request))


def separate_options(words: Sequence[str]) -> list[str]:
    """Insert `--` before node/NAME, so that typer leaves netkat's own options alone.

    `words` is the command line from the word `netkat` on.
    """
    at = 1
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        number = words[at] in ("-v", "--v") and words[at + 1 : at + 2]
        if _FLAGS.get(words[at]) or (number and number[0].isdecimal()):
            at += 1
        at += 1
    if at >= len(words) or words[at] == "--":
        return list(words)
    return [*words[:at], "--", *words[at:]]


def read(words: Sequence[str]) -> NetkatArguments | None:
    """Read netkat's options and arguments; None when they ask for its help. As in `kubectl exec POD
    -- CMD`, they may be set off by --.

    Raises:
        UsageError: an option is wrong; names the option and its expected value.
    """
    try:
        for word in words:
            word.encode()
        request = netkat.parse(list(words[1:] if words[:1] == ["--"] else words), nodes=True)
    except UnicodeEncodeError:
        raise UsageError("netkat: a word that is not UTF-8 cannot be sent to a node") from None
    except UsageError as error:
        raise UsageError(f"netkat: {error.message}", hint=_hint(error)) from None
    if request is None:
        return None
    via = _node(request.via) if "/" in request.via else ""
    return NetkatArguments(replace(request, pcap=PCAP if request.pcap else ""), via, request.pcap)


def _node(word: str) -> str:
    try:
        next_hop = arguments.target(word)
    except UsageError as error:
        raise UsageError(f"netkat: --via {error.message}", hint=_VIA) from None
    if next_hop.kind != "node":
        raise UsageError(f"netkat: --via {word}: not a node", hint=_VIA)
    return next_hop.name


def _hint(error: UsageError) -> str:
    named = {word.strip(",:").partition("=")[0] for word in error.message.split()}
    for flag in sorted(named & _FLAGS.keys()):
        return f"put {flag} of `kubectl ebpfnet` before node/NAME"
    if error.message.startswith("--via "):
        return _VIA
    return error.hint or "See 'kubectl ebpfnet netkat node/NAME -h' for netkat's options."
