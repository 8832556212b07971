"""`path -w`: look again and again, and print what changed since the last look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from kubectl_ebpfnet.cli.terminal import Progress, emit
from kubectl_ebpfnet.cli.watching import pause, until_interrupted
from kubectl_ebpfnet.errors import EbpfnetError, UsageError
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.path import Path

Look = Callable[[], "tuple[Path, Bundle]"]
_TEXTS, _DOCUMENTS = ("table", "wide"), ("json", "yaml")
"""Formats: after the first look the texts have lines for what changed, the documents come whole."""


def check(output: str) -> None:
    """Refuse a format that cannot be printed again and again. Raises UsageError."""
    if output not in (*_TEXTS, *_DOCUMENTS):
        raise UsageError(
            f"-w and -o {output.partition('=')[0]}: it shows one answer",
            hint=f"-w goes with -o {', '.join((*_TEXTS, *_DOCUMENTS))}",
        )


def watch(
    look: Look,
    output: str,
    view: View,
    progress: Progress,
    seconds: float = 2.0,
) -> NoReturn:
    """Print an answer, then what changes, until the user interrupts.

    Args:
        look: gives an answer.
        output: table, wide, json or yaml.
        view: the terminal.
        progress: shows the current step.
        seconds: between two looks.

    Raises:
        WatchEnded: by Ctrl-C, once there was an answer.
        EbpfnetError: of the first look, or stdout cannot be written. What ends a later look (the
            pod is being replaced, the API server does not answer) is a line.
        ReaderGone: the reader of stdout is gone.
    """
    path, bundle = look()
    progress.show("")
    emit(render(path, bundle, output, view))
    with until_interrupted():
        _watch(path, look, output, view, progress, seconds)


def _watch(
    path: Path, look: Look, output: str, view: View, progress: Progress, seconds: float
) -> NoReturn:
    """Print what changes since an answer; arguments as of `watch`."""
    from kubectl_ebpfnet.render.path.steady import steady

    failed = ""
    while True:
        progress.show("watching: Ctrl-C ends")
        pause(seconds)
        at = time.strftime("%H:%M:%S")
        try:
            now, bundle = look()
        except EbpfnetError as error:
            if steady(str(error)) != failed:
                failed = steady(str(error))
                progress.warn(f"{at}  cannot look: {error}")
            continue
        text = _changed(path, now, bundle, output, view, at)
        progress.show("")
        if failed:
            progress.warn(f"{at}  can look again")
            failed = ""
        if text:
            emit(text)
        path = now


def _changed(before: Path, after: Path, bundle: Bundle, output: str, view: View, at: str) -> str:
    """Return what is to be printed of a look, "" where nothing changed."""
    from kubectl_ebpfnet.render.path.changes import changes, lines

    found = changes(before, after)
    if not found or output in _TEXTS:
        return "".join(f"{line}\n" for line in lines(found, at, view))
    text = render(after, bundle, output, view)
    return f"---\n{text}" if output == "yaml" else text
