"""Whether a command that only reads may deploy: asked once, and never taken for granted."""

from __future__ import annotations

import contextlib
import os
import pty
import sys

import pytest

from kubectl_ebpfnet.cli import agreement as module
from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.terminal import Progress


@pytest.mark.parametrize(
    ("answer", "why"), [(True, ""), (False, "not wanted"), (None, "no terminal to ask on; --yes")]
)
def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch, answer: bool | None, why: str) -> None:
    asked: list[str] = []

    def confirmed(question: str) -> bool | None:
        asked.append(question)
        return answer

    monkeypatch.setattr(module, "confirmed", confirmed)
    ask = agreement(Progress(), "--yes")
    first, second = ask("deploy a node pod on n1?"), ask("deploy one on n2?")
    assert first == second
    assert first.endswith(why)
    assert (first == "") == (answer is True)
    assert asked == ["Deploy a node pod on n1?"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (b"y\n", "y\nTrue\n"),
        (b"\n", "\nFalse\n"),
        (b"\x04", "\nFalse\n"),  # Ctrl-D
        (b"\x03", "^C\ninterrupted\n"),  # Ctrl-C
    ],
)
def test_what_a_terminal_shows_after_the_question(typed: bytes, shown: str) -> None:
    """On a pseudo-terminal: what follows stands on a line of its own, whatever key ended it."""
    program = (
        "from kubectl_ebpfnet.cli.terminal import confirmed\n"
        "try: print(confirmed('Deploy?'))\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    seen = b""
    with os.fdopen(terminal, "r+b", buffering=0) as one, contextlib.suppress(OSError):
        while not seen.endswith(b"[y/N] "):
            seen += one.read(1000)
        one.write(typed)
        while more := one.read(1000):
            seen += more
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert seen.decode().replace("\r\n", "\n") == f"Deploy? [y/N] {shown}"
