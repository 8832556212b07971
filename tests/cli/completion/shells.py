"""Real shells, whose completion is asked as a person asks it: by a tab on a terminal; fish, which
draws its lines anew, by its own `complete -C`."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cli.console import SECONDS, environment

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
READY = "ready>"
"""The prompt; a shell shows it when it reads keys."""
DONE = "completed:"
TO_THE_START, CLEAR = "\x01", "\x15"

_STARTS = {
    "bash": ["bash", "--noprofile", "--rcfile", "{home}/rc", "-i"],
    "zsh": ["zsh", "-i"],
}
_SETUPS = {
    "bash": f"bind 'set enable-bracketed-paste off'\nPS1='{READY} '\nsource {BASH_COMPLETION}\n"
    "source <({loads})\n",
    "zsh": f"autoload -U compinit; compinit -u -D\nPROMPT='{READY} '\n"
    "source <({loads})\nunset zle_bracketed_paste\nbindkey '^U' kill-whole-line\n",
}


def missing(shell: str) -> str:
    """Why a shell cannot be tested here, "" where it can."""
    if shell == "bash" and not BASH_COMPLETION.exists():
        return "bash-completion is not installed"
    return "" if shutil.which(shell) else f"{shell} is not installed"


class Shell:
    """A shell that waits for keys."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.wait_for(READY)

    def wait_for(self, text: str) -> str:
        """Read what is shown, up to a text and the rest of what is there."""
        shown, until = "", time.monotonic() + SECONDS
        while text not in shown:
            ready, _, _ = select.select([self._terminal], [], [], until - time.monotonic())
            assert ready, f"{text!r} is not shown: {shown!r}"
            shown += os.read(self._terminal, 65536).decode(errors="replace").replace("\r", "")
        return shown

    def completed(self, line: str) -> str:
        """Type a line and a tab, and return what it became: `echo`, put before it, prints it."""
        os.write(self._terminal, f"{line}\t{TO_THE_START}echo {DONE} \n".encode())
        shown = self.wait_for(f"\n{DONE} ")
        while not (found := shown.rpartition(f"\n{DONE} ")[2]).count("\n"):
            shown += self.wait_for("\n")
        if READY not in found:
            self.wait_for(READY)
        return found.partition("\n")[0].rstrip()


def completed(shell: str, loads: str, home: Path, lines: Sequence[str]) -> list[str]:
    """Return what each line becomes by a tab; each has one completion.

    Args:
        shell: `bash`, `zsh` or `fish`.
        loads: the command that prints a completion script for it.
        home: an empty folder.
        lines: as typed.
    """
    if shell == "fish":
        return _by_fish(loads, home, lines)
    with _running(shell, loads, home) as typing:
        return [typing.completed(line) for line in lines]


def _by_fish(loads: str, home: Path, lines: Sequence[str]) -> list[str]:
    asked = "; ".join(f"complete -C {shlex.quote(line)}; echo" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "--command", f"{loads} | source; {asked}"],
        capture_output=True, text=True, env=environment(HOME=str(home)), cwd=home,
        timeout=SECONDS, check=True,
    )  # fmt: skip
    found = [answer.partition("\t")[0] for answer in done.stdout.removesuffix("\n\n").split("\n\n")]
    return [f"{line.rpartition(' ')[0]} {last}" for line, last in zip(lines, found, strict=True)]


@contextmanager
def _running(shell: str, loads: str, home: Path) -> Iterator[Shell]:
    """Run a shell in a terminal of its own.

    Args:
        shell: its name.
        loads: the command that prints a completion script for it.
        home: an empty folder.
    """
    ours, theirs = pty.openpty()
    rc = _SETUPS[shell].replace("{loads}", loads)
    for name in ("rc", ".zshrc"):
        (home / name).write_text(rc)
    argv = [word.replace("{home}", str(home)) for word in _STARTS[shell]]
    env = environment(HOME=str(home), ZDOTDIR=str(home), TERM="xterm", COLUMNS="200")
    process = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=home, start_new_session=True
    )
    os.close(theirs)
    try:
        yield Shell(ours)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
        os.close(ours)
