"""stdout for data, stderr for messages, and a progress line on terminals."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, TextIO

from kubectl_ebpfnet.errors import EbpfnetError, RunEnded, UsageError

if TYPE_CHECKING:
    from kubectl_ebpfnet.render.text.view import View


class ReaderGone(RunEnded):
    """The reader of stdout closed the pipe, as `| head` does: the run ends quietly."""


class WatchEnded(RunEnded):
    """The user has seen enough of a watch: the run ends quietly, as `kubectl get -w` does."""


_IN_JSON = "ebpfnet-json"


def _as_in_json(error: UnicodeError) -> tuple[str, int]:
    """Return what an encoding lacks as JSON escapes it: a document stays one."""
    import json  # for such an encoding alone

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_IN_JSON, _as_in_json)


def emit(text: str) -> None:
    """Write data to stdout, all of it.

    Raises:
        ReaderGone: the other end of the pipe is closed.
        EbpfnetError: stdout cannot be written, e.g. to a full disk.
    """
    with _stdout() as out:
        # A terminal that knows no arrow shows \u2192 rather than an exception.
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors=_IN_JSON)
        out.write(text)


@contextlib.contextmanager
def _stdout() -> Iterator[TextIO]:
    """Give stdout, and flush what was written. Raises as `emit`."""
    out = sys.stdout
    if out is None:
        raise EbpfnetError("there is no stdout to write the answer to")
    try:
        yield out
        out.flush()
    except BrokenPipeError:
        discard_stdout()
        raise ReaderGone from None
    except OSError as error:
        discard_stdout()
        raise EbpfnetError(f"cannot write the answer: {error.strerror or error}") from error


def write_utf8() -> None:
    """Have pipes and files get UTF-8 on Windows too, as JSON is and all that kubectl prints."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8")


def emit_bytes(file: IO[bytes]) -> None:
    """Write the rest of a file to stdout, to its end. Raises as `emit`."""
    with _stdout() as out:
        while piece := file.read(1 << 18):
            out.buffer.write(piece)


def discard_stdout() -> None:
    """Write no more to stdout, whose reader is gone or whose disk is full."""
    # The buffered rest would fail again, with a message, when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def width() -> int:
    """Return the terminal's columns, 0 where stdout is no terminal: nothing is wrapped."""
    if sys.stdout is None or not sys.stdout.isatty():
        return 0
    import shutil

    return shutil.get_terminal_size().columns


IN_A_PIPE = 100
"""Columns of an answer in a pipe: a reader, a ticket or a page wraps what is longer as it likes."""


def reading_width() -> int:
    """Return the columns for an answer that a person reads: the terminal's, COLUMNS in a pipe, or
    IN_A_PIPE."""
    given = os.environ.get("COLUMNS", "")
    return width() or (int(given) if given.isdecimal() and 20 <= int(given) < 10_000 else IN_A_PIPE)


def ascii_only() -> bool:
    """Tell whether marks and arrows must be ASCII: stdout's encoding has none, or the locale is
    expressly C.

    Python writes UTF-8 in that locale all the same, and has set LC_CTYPE for it (PEP 538, 540).
    """
    if sys.platform == "win32" and not (sys.stdout and sys.stdout.isatty()):
        return True  # PowerShell takes a pipe for the console's code page
    given = {name: os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")}
    if given["LC_CTYPE"] == "C.UTF-8":
        given["LC_CTYPE"] = ""
    if next(filter(None, given.values()), "") in ("C", "POSIX"):
        return True
    try:
        "✓✗→↔…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def for_terminal(text: str) -> str:
    """Return a text of the program's own as the terminal shows it: in ASCII where that is all."""
    if text.isascii() or not ascii_only():
        return text
    from kubectl_ebpfnet.render.text.view import in_ascii

    return in_ascii(text)


def color(mode: str) -> bool:
    """Tell whether to colour stdout.

    Raises:
        UsageError: not auto, always or never.
    """
    from kubectl_ebpfnet.render.text.style import COLOR_MODES, color_enabled

    if mode not in COLOR_MODES:
        raise UsageError(f"--color {mode!r}", hint=f"it is one of {', '.join(COLOR_MODES)}")
    return color_enabled(mode, sys.stdout, os.environ)


def view_of(columns: int, colored: str, verbosity: int) -> View:
    """Return the reader's terminal and options, for texts.

    Args:
        columns: `width()`, or `reading_width()` for what is wrapped in a pipe too.
        colored: of --color.
        verbosity: of -v.

    Raises:
        UsageError: of `color`.
    """
    from kubectl_ebpfnet.render.text.view import View

    return View(columns, color(colored), verbosity > 0, ascii_only())


def print_error(message: str, hint: str = "", usage: str = "") -> None:
    """Print on stderr why the run ends, as kubectl prints errors.

    Args:
        message: of the error; printed in one line.
        hint: the next step, "" for none.
        usage: the line that names the help, "" for none.
    """
    from kubectl_ebpfnet.render.text.style import escape

    lines = [f"error: {escape(message)}"]
    if hint.startswith("See '"):
        usage = hint
    elif hint:
        lines.append(f"hint: {escape(hint)}")
    _write_stderr([*lines, *([escape(usage)] if usage else [])])


def confirmed(question: str) -> bool | None:
    """Ask a yes/no question on the terminal; None where there is no terminal to ask on.

    Args:
        question: without the `[y/N]`.
    """
    streams = (sys.stdin, sys.stderr)
    if any(stream is None or not stream.isatty() for stream in streams):
        return None
    from kubectl_ebpfnet.render.text.style import escape

    line = ""
    try:
        sys.stderr.write(f"{escape(question)} [y/N] ")
        sys.stderr.flush()
        line = sys.stdin.readline()
    finally:
        if not line.endswith("\n"):  # Ctrl-D, Ctrl-C: what follows has a line of its own
            sys.stderr.write("\n")
    return line.strip().lower() in ("y", "yes")


def _write_stderr(lines: Iterable[str]) -> None:
    if sys.stderr is None:
        return
    text = for_terminal("".join(f"{line}\n" for line in lines))
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass  # stderr is closed; the exit code still tells


def log_line(text: str) -> None:
    """Write a log's line to stderr, in the place of a progress line."""
    from kubectl_ebpfnet.render.text.style import escape

    # A line of HTTP headers is one of its own, as klog prints it.
    lines = [escape(line) for line in text.expandtabs(4).split("\n")]
    if sys.stderr is not None and sys.stderr.isatty():
        lines[0] = f"\r\x1b[K{lines[0]}"
    _write_stderr(lines)


class Progress:
    """Lines on stderr during a run: warnings always, progress only on a terminal.

    The next line clears a progress line, and so does leaving the `with`.
    """

    def __init__(self, worded: Callable[[str], str] = str) -> None:
        """`worded` returns a warning as it is printed: its commands for the cluster asked."""
        self._worded = worded
        self._watched = (
            sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def warn(self, line: str) -> None:
        """Print a line that the user must see, e.g. which pod stands for a workload; a terminal's
        lines break between words."""
        from kubectl_ebpfnet.render.text.style import escape
        from kubectl_ebpfnet.render.text.wrap import wrap

        self._clear()
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        line = escape(self._worded(line))
        _write_stderr(wrap(line, self._room() if on_terminal else 0))

    def show(self, line: str) -> None:
        """Show the current step, on a terminal only; "" clears the line."""
        if not line:
            self._clear()
        if not self._watched or not line:
            return
        from kubectl_ebpfnet.render.text.style import escape

        # One column is left free: a full line would wrap, and could not be cleared.
        self._write(f"\r\x1b[K{escape(line)[: self._room() - 1]}")
        self._shown = True

    @staticmethod
    def _room() -> int:
        """Return the columns of stderr's terminal."""
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            return 80

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
