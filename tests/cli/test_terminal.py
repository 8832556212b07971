"""What is written where: data, talk and progress."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

import pytest

from kubectl_ebpfnet.cli.terminal import (
    Progress,
    ReaderGone,
    WatchEnded,
    ascii_only,
    emit,
    print_error,
    reading_width,
    width,
)
from kubectl_ebpfnet.cli.watching import emit_repeatedly, pause
from kubectl_ebpfnet.errors import EbpfnetError
from kubectl_ebpfnet.render.text.documents import safe_json


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in stderr's place. Not a fixture: pytest puts its own there afterwards."""
    fake = Terminal()
    monkeypatch.setattr(sys, "stderr", fake)
    monkeypatch.setenv("TERM", "xterm")
    return fake


def test_progress_is_cleared_before_what_is_said(monkeypatch):
    terminal = watched(monkeypatch)
    with Progress() as progress:
        progress.show("asking 3 places")
        progress.warn("deploy/web: taking pod/web-1")
        progress.show("explaining")
    assert terminal.getvalue() == (
        "\r\x1b[Kasking 3 places\r\x1b[Kdeploy/web: taking pod/web-1\n\r\x1b[Kexplaining\r\x1b[K"
    )


def test_progress_is_cleared_before_an_error(monkeypatch):
    terminal = watched(monkeypatch)
    with contextlib.suppress(EbpfnetError), Progress() as progress:
        progress.show("asking")
        raise EbpfnetError("no")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_fits_the_line_and_is_escaped(monkeypatch):
    terminal = watched(monkeypatch)
    with Progress() as progress:
        progress.show("\x1b[2J" + "x" * 200)
    line = terminal.getvalue().split("\r\x1b[K")[1]
    assert len(line) == 79
    assert line.startswith("\\x1b[2J")


def test_a_remark_breaks_between_words_on_a_terminal_alone(monkeypatch, capsys):
    remark = "missing: " + " ".join(["attachments"] * 12)
    Progress().warn(remark)
    assert capsys.readouterr().err == f"{remark}\n"
    terminal = watched(monkeypatch)
    Progress().warn(remark)
    lines = terminal.getvalue().splitlines()
    assert " ".join(lines) == remark
    assert max(map(len, lines)) <= 80


def test_silent_where_nobody_watches(monkeypatch, capsys):
    with Progress() as progress:
        progress.show("asking")
        progress.warn("one thing")
    assert capsys.readouterr().err == "one thing\n"
    monkeypatch.setattr(sys, "stderr", dumb := Terminal())
    monkeypatch.setenv("TERM", "dumb")
    Progress().show("asking")
    assert dumb.getvalue() == ""


def test_complaints_are_escaped(capsys):
    print_error("pod \x1b]0;x\x07 not found", "did you mean \u202ex?")
    assert capsys.readouterr().err == (
        "error: pod \\x1b]0;x\\x07 not found\nhint: did you mean \\u202ex?\n"
    )


def test_a_narrow_encoding_shows_what_it_can(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    emit("a → b\n")
    assert raw.getvalue() == b"a \\u2192 b\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_document_stays_one_in_any_encoding(monkeypatch, encoding):
    said = {"note": "café → 😀"}
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    emit(safe_json(said))
    monkeypatch.undo()
    assert json.loads(stdout.buffer.getvalue().decode(encoding)) == said


def test_no_stdout_and_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    print_error("nobody hears this")
    with Progress() as progress:
        progress.show("nor this")
    with pytest.raises(EbpfnetError, match="no stdout"):
        emit("nor this")


@pytest.mark.parametrize(
    ("given", "columns"),
    [("", 100), ("80", 80), ("200", 200), ("5", 100), ("x", 100), ("-80", 100), ("9" * 30, 100)],
)
def test_the_width_of_an_answer_in_a_pipe(monkeypatch, given, columns):
    monkeypatch.setenv("COLUMNS", given)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert reading_width() == columns
    assert width() == 0  # a table in a pipe is not wrapped


@pytest.mark.parametrize(
    ("environ", "encoding", "ascii_alone"),
    [
        ({}, "utf-8", False),
        ({"LANG": "C"}, "utf-8", True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", True),  # as Python sets it, PEP 538
        ({"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, "utf-8", False),
        ({"LANG": "de_DE.UTF-8"}, "utf-8", False),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}, "utf-8", True),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, "utf-8", False),
        ({"LANG": "de_DE"}, "latin-1", True),
        ({}, "ascii", True),
    ],
)
def test_which_terminal_has_ascii_alone(monkeypatch, environ, encoding, ascii_alone):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert ascii_only() is ascii_alone


def test_a_watch_that_nobody_reads_ends_while_it_waits(monkeypatch):
    ours, theirs = os.pipe()
    monkeypatch.setattr("kubectl_ebpfnet.cli.watching.discard_stdout", lambda: None)
    with os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        pause(0)
        os.close(ours)
        with pytest.raises(ReaderGone):
            pause(60)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("term", "shown"),
    [
        ("xterm", "\x1b[2J\x1b[Ha\x1b[K\n\x1b[J\x1b[Hb\x1b[K\n\x1b[J"),
        ("dumb", "a\n\nb\n"),
    ],
)
def test_a_dumb_terminal_gets_no_codes(monkeypatch, term, shown):
    texts = iter(["a\n", "b\n"])

    def text() -> str:
        if (found := next(texts, None)) is None:
            raise KeyboardInterrupt
        return found

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", term)
    with pytest.raises(WatchEnded):
        emit_repeatedly(text, seconds=0)
    monkeypatch.undo()
    assert terminal.getvalue() == shown
