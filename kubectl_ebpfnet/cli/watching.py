"""`-w`: look again and again, until the user has seen enough or nobody reads it any more."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from kubectl_ebpfnet.cli.terminal import ReaderGone, WatchEnded, discard_stdout, emit


def emit_repeatedly(text: Callable[[], str], seconds: float = 2.0) -> NoReturn:
    """Print the text that a function returns, again and again, until the user interrupts.

    On a terminal each text replaces the last one; elsewhere, and where the terminal is dumb, an
    empty line separates them.

    Raises:
        WatchEnded: by Ctrl-C, once there was an answer.
        ReaderGone, EbpfnetError: as `emit`, and what `text` raises.
    """
    replaces = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    shown = text()
    emit("\x1b[2J" + _over(shown) if replaces else shown)
    with until_interrupted():
        while True:
            pause(seconds)
            shown = text()
            emit(_over(shown) if replaces else f"\n{shown}")


def _over(text: str) -> str:
    """Return what prints each line over the old one: erasing the screen first would flicker."""
    return "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J"


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Let Ctrl-C end what is inside, a watch, quietly. Raises WatchEnded."""
    try:
        yield
    except KeyboardInterrupt:
        raise WatchEnded from None


def pause(seconds: float) -> None:
    """Wait between two looks of a watch, which may print nothing for long.

    Raises:
        ReaderGone: the other end of the pipe is closed, as by `| grep -m1`.
    """
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is no stdout, or none with a descriptor
        output = -1
    # poll(2) of macOS refuses terminals, and Windows has none: there the next look finds out.
    if output < 0 or sys.platform != "linux":
        time.sleep(seconds)
        return
    poller = select.poll()
    poller.register(
        output, 0
    )  # POLLERR, which a pipe without a reader has, is always told: poll(2)
    if poller.poll(seconds * 1000):
        discard_stdout()
        raise ReaderGone
