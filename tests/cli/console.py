"""Runs the program as a person would: `run` in this process, the rest as processes of their own.

A start of Python takes longer than most answers, so only tests of the process itself (a pipe, a
terminal, a signal, kubectl, imports) start one.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from unittest import mock

from kubectl_ebpfnet.cli import app

BIN = Path(sys.executable).parent
PROGRAM = str(BIN / "kubectl-ebpfnet")
KUBECTL = str(BIN / "kubectl")
SECONDS = 60


def environment(**more: str) -> dict[str, str]:
    """No kubeconfig, no colour wishes, no proxy, the venv first on PATH; of the machine's own
    environment PATH alone, where `sh` and `head` are found."""
    return {
        "LANG": "C.UTF-8",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent/kubeconfig",
        **more,
    }


def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Call main() as the console entry does, with /dev/null, a pipe and a pipe for its streams.

    Nothing of a call is left for the next one: environment, folder, signals and streams are put
    back. Descriptors 0, 1 and 2 are this process's: `netkat` sessions need a process of their own.
    """
    out, err = _Pipe("strict"), _Pipe("backslashreplace")
    with (
        _given_back(environment(**(env or {}))),
        open(os.devnull) as nothing,
        mock.patch.object(sys, "stdin", nothing),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _exit_code(words)
    return subprocess.CompletedProcess(words, code, out.text(), err.text())


def _exit_code(words: Sequence[str]) -> int:
    try:
        return app.main(words)
    except SystemExit as end:  # as the interpreter takes it
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1


class _Pipe(io.TextIOWrapper):
    """stdout or stderr of a program that was not started from a terminal."""

    def __init__(self, errors: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors)

    def text(self) -> str:
        """What was written, as `subprocess` decodes it."""
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def _given_back(environ: Mapping[str, str]) -> Iterator[None]:
    """What main() reads and changes of a process: `environ` alone within, as it was afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    with (
        contextlib.chdir(Path.cwd()),
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.object(app, "_exit_now", _interrupted),
    ):
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _interrupted(code: int) -> NoReturn:
    # Here os._exit would end pytest without a word.
    raise KeyboardInterrupt(f"the program would have left with {code}")


def run_process(
    *words: str, env: Mapping[str, str] | None = None, program: Sequence[str] = (PROGRAM,)
) -> subprocess.CompletedProcess[str]:
    """Run a program to the end, with pipes for stdout and stderr."""
    return subprocess.run(
        [*program, *words],
        capture_output=True,
        encoding="utf-8",
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )


def through_kubectl(
    *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same as `kubectl ebpfnet …`, the plugin found on PATH."""
    return run_process("ebpfnet", *words, env=env, program=(KUBECTL,))


def on_a_terminal(
    *words: str, columns: int = 80, stderr_too: bool = False, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and what a terminal of so many columns was sent."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "TERM": "xterm", **(env or {})}
    with subprocess.Popen(
        [PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs if stderr_too else subprocess.DEVNULL,
        env=environment(**size),
    ) as process:
        os.close(theirs)
        text = _read(ours, time.monotonic() + SECONDS)
        return process.wait(SECONDS), text.replace("\r\n", "\n")


def _read(terminal: int, deadline: float) -> str:
    said = b""
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux: EIO when the other side is closed
            break
        if not piece:
            break
        said += piece
    os.close(terminal)
    return said.decode("utf-8")
