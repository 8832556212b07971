"""`show-record`: print a record of a capture: where it was asked, the command, and its output."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import open_capture
from kubectl_ebpfnet.cli.terminal import emit, width
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags
from kubectl_ebpfnet.errors import EbpfnetError, UsageError
from kubectl_ebpfnet.render.output.formats import DOCUMENTS, document_text, output_format

TEXT = CommandText(
    usage="NUMBER --from FILE [flags]",
    summary="Print a record of a capture.",
    description="""`path -o wide` and `path -v` name the records that prove a hop by their numbers.
This prints one of them: the place, the command, how it ended, and its output as
it was printed: a terminal's lines break between words, and what it would obey
is escaped. No cluster is contacted: a live run keeps no records, `capture`
writes them to a file.""",
    connects=False,
    examples=(
        ("Of a recorded cluster, what `path -o wide` calls 43", "show-record 43 --from demo"),
        ("Of a capture", "show-record 43 --from case.zip"),
        ("Its output alone", "show-record 43 --from demo -o jsonpath={.stdout}"),
    ),
)


@with_kubectl_flags
def run(
    _flags: flags.GlobalFlags,
    number: Annotated[str, Argument(metavar="NUMBER", help="The record's number, from 1")],
    capture: flags.Capture = "",
    output: Annotated[
        str,
        Option(
            "-o",
            "--output",
            metavar="FORMAT",
            show_default=False,
            help="One of: json, yaml, jsonpath=…, jsonpath-as-json=…, jsonpath-file=…",
        ),
    ] = "",
) -> int:
    """Print a record of a capture."""
    format_ = output_format(output, DOCUMENTS) if output else None
    if not capture:
        raise UsageError(
            "show-record needs --from FILE: a live run keeps no records",
            hint="capture first, with the words of `path`: kubectl ebpfnet capture -o case.zip "
            "pod/NAME --to DESTINATION; then ask path and show-record --from case.zip",
        )
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UsageError(
            f"{number!r} is no number of a record", hint="`path … -o wide` and `-v` print them"
        )
    bundle = open_capture(capture)
    try:
        record = bundle.numbered(int(number))
    except IndexError:
        most = len(bundle.records)
        raise EbpfnetError(
            f"there is no record {number} in {bundle.source}", hint=f"it has records 1 to {most}"
        ) from None
    from kubectl_ebpfnet.render.text.record import document, text

    if format_ is not None:
        emit(document_text(format_, partial(document, record)))
    else:
        emit(text(record, bundle, width()))
    return 0
