"""stdout for data, stderr for talk, and a line of progress where somebody watches."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from kubectl_ebpfnet.errors import EbpfnetError, UsageError


class ReaderGone(BaseException):
    """Nobody reads stdout any more, as after `| head`: the run ends quietly."""


def emit(text: str) -> None:
    """Write data to stdout, all of it.

    Raises:
        ReaderGone: the other end of the pipe is closed.
        EbpfnetError: it cannot be written, e.g. to a full disk.
    """
    out = sys.stdout
    if out is None:
        raise EbpfnetError("there is no stdout to write the answer to")
    try:
        # A terminal that knows no arrow shows \u2192 rather than an exception.
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors="backslashreplace")
        out.write(text)
        out.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise ReaderGone from None
    except OSError as error:
        _forget_stdout()
        raise EbpfnetError(f"cannot write the answer: {error.strerror or error}") from error


def emit_again_and_again(text: Callable[[], str], seconds: float = 2.0) -> NoReturn:
    """Show what a function says, again and again, until the user ends it.

    On a terminal each look takes the place of the last one; elsewhere an empty line parts them.
    """
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    first = True
    while True:
        said = text()
        if on_terminal:
            # Home, then each line over the old one: erasing the screen first would flicker.
            said = "\x1b[H" + said.replace("\n", "\x1b[K\n") + "\x1b[J"
            said = ("\x1b[2J" if first else "") + said
        elif not first:
            said = "\n" + said
        emit(said)
        first = False
        time.sleep(seconds)


def _forget_stdout() -> None:
    # What is still in the buffer would fail again when the interpreter ends, and say so.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def width() -> int:
    """Columns of the terminal that stdout is, 0 when it is none: then nothing is wrapped."""
    if sys.stdout is None or not sys.stdout.isatty():
        return 0
    import shutil

    return shutil.get_terminal_size().columns


def color(mode: str) -> bool:
    """Whether to colour stdout.

    Raises:
        UsageError: not auto, always or never.
    """
    from kubectl_ebpfnet.render.text.style import COLOR_MODES, color_enabled

    if mode not in COLOR_MODES:
        raise UsageError(f"--color {mode!r}", hint=f"it is one of {', '.join(COLOR_MODES)}")
    return color_enabled(mode, sys.stdout, os.environ)


def complain(message: str, hint: str = "") -> None:
    """Say on stderr why the run ends, as kubectl says it; and what to do next."""
    from kubectl_ebpfnet.render.text.style import escape

    _tell([f"error: {escape(message)}", *([f"hint: {escape(hint)}"] if hint else [])])


def _tell(lines: Iterable[str]) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens; the exit code still tells


class Progress:
    """What is said while a run goes on: `say` always, `progress` only where somebody watches.

    A progress line is cleared by whatever is said next, and by leaving the `with`.
    """

    def __init__(self) -> None:
        self._watched = (
            sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def say(self, line: str) -> None:
        """A line that has to be said, e.g. which pod was taken for a workload."""
        from kubectl_ebpfnet.render.text.style import escape

        self._clear()
        _tell([escape(line)])

    def progress(self, line: str) -> None:
        """What is going on now; shown on a terminal alone. "" clears it."""
        if not line:
            self._clear()
        if not self._watched or not line:
            return
        from kubectl_ebpfnet.render.text.style import escape

        try:
            room = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            room = 80
        # One column is left free: a full line would wrap, and could not be cleared.
        self._write(f"\r\x1b[K{escape(line)[: room - 1]}")
        self._shown = True

    def _clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._watched = False
