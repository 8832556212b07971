"""The flags that several commands share; kubectl's own are in kubectl_flags.py."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from kubectl_ebpfnet.cli.given_flags import GlobalFlags as GlobalFlags
from kubectl_ebpfnet.cli.kubectl_flags import VERBOSITY, takes_value

# Arguments and flags that several commands share.
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="pod/NAME, NAME, deploy/, sts/, ds/NAME, node/NAME, or the address of a client "
        "outside of the cluster",
    ),
]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DESTINATION",
        help="An IPv4 or IPv6 address, pod/NAME, svc/NAME, node/NAME, a DNS name or a URL, "
        "with :PORT and /udp",
    ),
]

To = Annotated[
    str,
    typer.Option("--to", metavar="ADDRESS[:PORT]", help="Address of the peer", show_default=False),
]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="One of: tcp, udp, sctp, icmp (default tcp)",
        show_default=False,
    ),
]
FlowProtocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="One of: tcp, udp, sctp, icmp",
        show_default=False,
    ),
]
Ipv4 = Annotated[bool, typer.Option("-4", "--ipv4", help="Take IPv4 addresses of both ends")]
Ipv6 = Annotated[bool, typer.Option("-6", "--ipv6", help="Take IPv6 addresses of both ends")]
Size = Annotated[
    str,
    typer.Option(
        "--size",
        metavar="BYTES",
        help="Ask for one IP packet of this size, headers included (as of tracepath; ping -s adds "
        "28 to its number, 48 with IPv6), which must not be fragmented",
        show_default=False,
    ),
]
Via = Annotated[
    str,
    typer.Option(
        "--via",
        metavar="NODE",
        help="The node by which a client outside enters: node/NAME (default: each that it may "
        "enter by)",
        show_default=False,
    ),
]
ToNamespace = Annotated[
    str,
    typer.Option(
        "--to-namespace",
        metavar="NAME",
        help="Namespace of the destination (default: -n)",
        show_default=False,
    ),
]
PrintRbac = Annotated[
    str,
    typer.Option(
        "--print-rbac",
        metavar="TIER",
        help="One of: capture, agents, node-pods, deploy; print its roles, or those of all",
    ),
]
Capture = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read a capture instead of a cluster: a file, - for stdin, or a built-in one: demo, "
        "demo:dropped, demo:unknown",
        show_default=False,
    ),
]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Refresh until interrupted")]
ListOutput = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="FORMAT",
        help="One of: table, wide, json, yaml, jsonpath=…, jsonpath-as-json=…, jsonpath-file=…",
    ),
]
ProbeOutput = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="FORMAT",
        help="One of: table, wide, json, yaml, html, jsonpath=…, jsonpath-as-json=…, "
        "jsonpath-file=…",
    ),
]
Color = Annotated[str, typer.Option("--color", metavar="WHEN", help="One of: auto, always, never")]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="TIME", help="Stop waiting after this long and show what is known"
    ),
]


def report_output(word: str, *more: str) -> str:
    """Return the format of an answer with tables in it, the template of a file in it.

    Args:
        word: of -o.
        more: formats that this answer has besides.

    Raises:
        UsageError: no such format.
    """
    from kubectl_ebpfnet.render.lists.listing import REPORTS
    from kubectl_ebpfnet.render.output.formats import output_format

    return output_format(word, (*REPORTS, *more)).word


def move_flags_behind_command(words: list[str]) -> list[str]:
    """Move kubectl's flags before the command behind it; kubectl accepts both orders."""
    values = takes_value()
    at = 0
    while at < len(words):
        word, *rest = words[at:]
        if re.fullmatch(r"-v+|--v", word):
            at += 2 if rest and rest[0].isdecimal() else 1
        elif word.partition("=")[0] in (*values, *VERBOSITY.spellings):
            at += 2 if values.get(word) else 1
        else:
            break
    if at >= len(words):
        return ["--help"]
    return [*words[at : at + 1], *words[:at], *words[at + 1 :]]
