"""Answers a shell, whatever happens: within LONGEST, with exit code 0, and nothing on stderr.

kubectl (1.26 and newer, pkg/cmd/plugin_completion.go) runs `kubectl_complete-ebpfnet` from PATH
with the words after the plugin's name; the wheel installs it beside the program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kubectl_ebpfnet.cli.completion.candidates import NOTHING
from kubectl_ebpfnet.cli.terminal import emit

LONGEST = 1.8
"""Seconds for everything: a name service or a credential plugin has no limit of its own."""


def main(words: Sequence[str], commands: Callable[[], Any]) -> NoReturn:
    """Answer in a process of its own, end what it started, and exit.

    Args:
        words: the words after the plugin's name.
        commands: gives the group of all commands.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # a credential plugin must neither read what is typed, nor print
    os.dup2(nothing, 2)
    groups = hasattr(os, "setpgid")  # Windows has none: a plugin that hangs there is left
    with contextlib.suppress(OSError):
        if groups:
            os.setpgid(0, 0)
    answer = answered(words, commands)
    with contextlib.suppress(Exception):
        sys.stdout.reconfigure(newline="\n")  # type: ignore[union-attr]  # a shell parts lines by it
        emit(answer)
        sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        if groups and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGTERM)  # a plugin that still runs; one that is stopped
            os.killpg(0, signal.SIGCONT)
    os._exit(0)  # a thread may hang still


def answered(words: Sequence[str], commands: Callable[[], Any]) -> str:
    """Return the answer to words; that of nothing where it takes too long, or fails."""
    found = [NOTHING.answer("")]

    def work() -> None:
        from kubectl_ebpfnet.cli.completion.words import complete

        with contextlib.suppress(Exception):
            found.append(complete(words, commands()))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(LONGEST)
    return found[-1]
