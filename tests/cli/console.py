"""Run the program as a user would: `run` in this process, the others as a child process.

Python takes longer to start than most answers take, so only tests of the process itself (a pipe, a
terminal, a signal, kubectl, imports) start a child.
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
    """Return an environment without kubeconfig, colour settings and proxy, with the venv first on
    PATH. Only PATH, for `sh` and `head`, comes from the machine."""
    return {
        "LANG": "C.UTF-8",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent/kubeconfig",
        **more,
    }


def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Call main() as the console entry does, with stdin from /dev/null and pipes for its output.

    Environment, folder, signal handlers and streams are restored after the call. Descriptors 0, 1
    and 2 stay those of this process, so a `netkat` session needs a child process.
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
    except SystemExit as end:  # as the interpreter handles it
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1


class _Pipe(io.TextIOWrapper):
    """stdout or stderr of a program that was not started from a terminal."""

    def __init__(self, errors: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors)

    def text(self) -> str:
        """Return the written text, decoded as `subprocess` does."""
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def _given_back(environ: Mapping[str, str]) -> Iterator[None]:
    """Set the environment for main(), and restore all process state that it changes."""
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
    # os._exit would end pytest silently.
    raise KeyboardInterrupt(f"the program would have exited with {code}")


def run_process(
    *words: str, env: Mapping[str, str] | None = None, program: Sequence[str] = (PROGRAM,)
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with pipes for stdout and stderr.

    Args:
        words: arguments of the program.
        env: variables on top of `environment()`.
        program: the program and its first arguments.
    """
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
    """Run `kubectl ebpfnet …`, with the plugin found on PATH."""
    return run_process("ebpfnet", *words, env=env, program=(KUBECTL,))


def on_a_terminal(
    *words: str, columns: int = 80, stderr_too: bool = False, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run the program on a terminal; return the exit code and the terminal's text.

    Args:
        words: arguments of the program.
        columns: width of the terminal.
        stderr_too: whether stderr is the terminal too, and not /dev/null.
        env: variables on top of `environment()`.
    """
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
