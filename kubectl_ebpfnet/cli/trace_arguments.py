"""The words of `trace`: what is followed, until when, and how it is shown."""

from __future__ import annotations

import sys
from pathlib import Path as File
from typing import TYPE_CHECKING, Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments, trace_process
from kubectl_ebpfnet.cli.object_words import shown as shown_word
from kubectl_ebpfnet.cli.path_arguments import Question, question
from kubectl_ebpfnet.cli.terminal import view_of, width
from kubectl_ebpfnet.cli.trace_plan import (
    Limits,
)
from kubectl_ebpfnet.cli.trace_process import ProcessQuestion
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.protocol.tracing import MOST_DATA

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.arguments import CaptureTarget
    from kubectl_ebpfnet.render.text.view import View

FORMATS = ("table", "wide", "events", "json", "yaml", "html", "pcapng")
TEMPLATES = ("jsonpath", "jsonpath-as-json", "jsonpath-file")
NAMES = (*FORMATS, *(f"{name}=…" for name in TEMPLATES))
_MOST = 100_000
_SIZE, _MOST_SIZE = 56, 65_000
"""Bytes of data of an echo, as ping(8) sends, and of a datagram."""
_DAY = 24 * 3600.0

Output = Annotated[
    str, Option("-o", "--output", metavar="FORMAT", help=f"One of: {', '.join(NAMES)}")
]
Send = Annotated[bool, Option("--send", help="Send the packets, from the source")]
Count = Annotated[
    str,
    Option(
        "-c", "--count", metavar="N", show_default=False,
        help="End after so many packets; with --send, send so many (default 1)",
    ),
]  # fmt: skip
Interval = Annotated[str, Option("--interval", metavar="TIME", help="Between two of --send")]
Payload = Annotated[
    str,
    Option(
        "--payload", metavar="TEXT", show_default=False, help="What a datagram of --send carries"
    ),
]  # fmt: skip
Size = Annotated[
    str,
    Option(
        "--size", metavar="BYTES", show_default=False,
        help="Of data in an echo or datagram of --send (default 56)",
    ),
]  # fmt: skip
For = Annotated[str, Option("--for", metavar="TIME", help="End after so long")]
Drops = Annotated[
    str,
    Option(
        "--drops", metavar="TARGET", show_default=False,
        help="All that pod/NAME or node/NAME loses, in place of a flow",
    ),
]  # fmt: skip
Snaplen = Annotated[
    str,
    Option(
        "--snaplen", metavar="BYTES", show_default=False,
        help="Of each packet, for -o pcapng and --save (default 128 with -o pcapng, at most 256)",
    ),
]  # fmt: skip
Save = Annotated[
    str,
    Option(
        "--save", metavar="FILE", show_default=False,
        help="Write all that was read and seen to a capture, for --from",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class How:
    """How the answer is shown, and where it comes from and goes to."""

    output: str
    view: View
    capture: str
    save: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is followed: the packets of a question of `path`, what a pod or node loses, or what a
    process of a node sends."""

    question: Question | None
    lost_by: CaptureTarget | None = None
    process: ProcessQuestion | None = None


def asked(
    source: str,
    destination: str,
    drops: str,
    protocol: str,
    to_namespace: str,
    *,
    ipv4: bool,
    ipv6: bool,
) -> Asked:
    """Read what is followed: the arguments and flags of these names, "" or False where not given.

    Raises:
        UsageError: a word cannot be read, or two contradict each other.
    """
    if drops:
        if source:
            raise UsageError("--drops and a flow: one of them", hint=f"e.g. trace --drops {source}")
        return Asked(None, arguments.pod_or_node(drops, "trace --drops"))
    if trace_process.is_process(source):
        process = trace_process.question(source, destination, protocol, ipv4=ipv4, ipv6=ipv6)
        return Asked(None, process=process)
    read = question(
        source, destination, protocol, to_namespace, ipv4=ipv4, ipv6=ipv6, size="", via="",
        selector="", all_pods=False,
    )  # fmt: skip
    return Asked(read)


def limits(
    count: str,
    interval: str,
    payload: str,
    size: str,
    seconds: str,
    timeout: str,
    snaplen: str,
    *,
    send: bool,
) -> Limits:
    """Read when it ends, and what is sent. Raises UsageError."""
    if count and not (count.isascii() and count.isdigit() and 0 < int(count[:9]) <= _MOST):
        raise UsageError(
            f"-c {shown_word(count)}: not a number from 1 to {_MOST}", hint="e.g. -c 3"
        )
    if snaplen and not (snaplen.isascii() and snaplen.isdigit() and int(snaplen[:9]) <= MOST_DATA):
        what = f"--snaplen {shown_word(snaplen)}: not a number up to {MOST_DATA}"
        raise UsageError(what, hint="e.g. --snaplen 128")
    bytes_ = int(size) if size.isascii() and size.isdigit() and len(size) < 6 else None
    if size and (bytes_ is None or bytes_ > _MOST_SIZE):
        what = f"--size {shown_word(size)}: not a number up to {_MOST_SIZE}"
        raise UsageError(what, hint="e.g. --size 1400")
    if not send and (size or payload):
        raise UsageError(f"{'--size' if size else '--payload'} is for --send", hint="add --send")
    number = int(count) if count else 1 if send else None
    between = arguments.duration(interval, "--interval") or 0.0
    arguments.duration(timeout, "--timeout")
    longest = arguments.duration(seconds, "--for") or _DAY
    if send and number:  # all of them, whatever --for says
        longest = max(longest, number * between + 5)
    data = int(snaplen) if snaplen else 0
    sent = _SIZE if bytes_ is None else bytes_
    return Limits(longest, number, send, between, payload=payload, size=sent, data=data)


def how(output: str, colored: str, verbosity: int, capture: str, save: str) -> How:
    """Read how the answer is shown. Raises UsageError, BundleError."""
    if output not in FORMATS:
        from kubectl_ebpfnet.render.output.formats import output_format

        output = output_format(output, (*FORMATS, *TEMPLATES)).word
    if save and capture:
        raise UsageError("--save and --from: what is read is a capture already")
    if output == "pcapng" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("-o pcapng is no text", hint="… -o pcapng > FILE, or | wireshark -k -i -")
    if save:
        from kubectl_ebpfnet.capture.write import refuse_existing

        refuse_existing(File(save))
    return How(output, view_of(width(), colored, verbosity), capture, save)
