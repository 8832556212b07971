"""What is written where: data, talk and progress."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from kubectl_ebpfnet.cli.terminal import Progress, emit, print_error
from kubectl_ebpfnet.errors import EbpfnetError


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


def test_no_stdout_and_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    print_error("nobody hears this")
    with Progress() as progress:
        progress.show("nor this")
    with pytest.raises(EbpfnetError, match="no stdout"):
        emit("nor this")
