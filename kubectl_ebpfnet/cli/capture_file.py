"""The file that `capture` writes: its name, and what is said of it."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from kubectl_ebpfnet.cli.arguments import CaptureTarget
from kubectl_ebpfnet.cli.help import PROGRAM
from kubectl_ebpfnet.cli.terminal import Progress, emit_bytes
from kubectl_ebpfnet.errors import UsageError

STDOUT = "-"
_NO_NAME = re.compile(r"[^A-Za-z0-9.]+")
_LONGEST_CONTEXT = 60
_FORMAT = re.compile(
    r"table|wide|json|yaml|name|html|mermaid|dot|zip"
    r"|(jsonpath(-as-json|-file)?|custom-columns(-file)?|go-template(-file)?|template(file)?)(=.*)?",
    re.DOTALL,
)
"""What -o takes of other commands and of kubectl; here it is a file."""


def given(output: str, deprecated: str) -> str:
    """Return the word of -o, or of -f, as which it was known once.

    Raises:
        UsageError: both were given, -o is a format's word, or stdout is a terminal.
    """
    if deprecated:
        if output:
            raise UsageError("-o and -f: a capture is one file", hint="-f is the old name of -o")
        Progress().warn("Flag --file has been deprecated, use -o: in kubectl -f is an input")
    if _FORMAT.fullmatch(output):
        name = output.partition("=")[0]
        raise UsageError(
            f"-o {name}: capture writes a zip, whose name -o is",
            hint=f"e.g. -o case.zip; -o ./{name} for a file of this name",
        )
    if output == STDOUT and sys.stdout is not None and sys.stdout.isatty():
        hint = f"e.g. {PROGRAM} capture -o - pod/NAME > case.zip"
        raise UsageError("-o -: stdout is a terminal, and a capture is a zip", hint=hint)
    return output or deprecated


def default_name(context: str, *, redact: bool) -> str:
    """Return a name of the context, unless names are redacted, and of the time."""
    who = "" if redact else _NO_NAME.sub("-", context).strip("-.")[-_LONGEST_CONTEXT:].strip("-.")
    return f"{who or 'capture'}-{datetime.now():%Y%m%d-%H%M%S}.zip"


@contextlib.contextmanager
def opened(name: str) -> Iterator[Path | IO[bytes]]:
    """Give the path to write, or for STDOUT a file without a name, which is printed at the end."""
    if name != STDOUT:
        yield Path(name)
        return
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        emit_bytes(file)


def size_of(file: Path | IO[bytes]) -> int:
    """Return the bytes of a written file."""
    if isinstance(file, Path):
        return file.stat().st_size
    return file.seek(0, 2)


def summary(name: str, records: int, size: int, reader: str) -> str:
    """Return the line that says what was written, and how it is read.

    Args:
        name: of the file, or STDOUT.
        records: number of records.
        size: bytes of the file.
        reader: the words of `path` that ask it.
    """
    what = "to stdout" if name == STDOUT else name
    bytes_ = next(
        f"{size / scale:.0f} {unit}"
        for scale, unit in ((10**6, "MB"), (1000, "KB"), (1, "bytes"))
        if size >= scale or scale == 1
    )
    return (
        f"wrote {what} ({records} records, {bytes_}). "
        f"Read it with: {PROGRAM} path {reader} --from {shlex.quote(name)}"
    )


def reader(
    targets: Sequence[CaptureTarget],
    destinations: Sequence[str],
    namespace: str,
    *,
    redact: bool,
) -> str:
    """Return the words of `path` that ask a capture of these places, `…` for what is open.

    Args:
        targets: pods, workloads and nodes, the source first.
        destinations: of --to, as typed.
        namespace: of the run.
        redact: names were replaced, so that only the reader of the file sees them.
    """
    if redact:
        return "…"
    source = targets[0].text if targets else ""
    others = [target.text for target in targets[1:] if target.kind == "pod"]
    to = [*destinations, *others]
    in_namespace = any(target.kind != "node" for target in targets) and namespace != "default"
    words = [*(("-n", namespace) if in_namespace else ()), *filter(None, (source, *to[:1]))]
    return " ".join([*map(shlex.quote, words), *(() if to and source else ("…",))])
