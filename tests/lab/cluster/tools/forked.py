"""Runs of the program in processes of their own that need not import it: forks of one that has.

Python takes 300 ms of a processor for the imports of a live run, and kubectl 60 ms to find the
plugin; a lab test asks up to ten times. What is about kubectl, a pipe, a terminal or a signal
starts the program through kubectl (`Lab.kubectl`, tests/lab/test_terminal_live.py).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import kubectl_ebpfnet
from kubectl_ebpfnet.cli import app

LIVE = ("kubernetes.client.rest", "kubernetes.config.kube_config", "typer", "websocket", "yaml")
"""What the program imports for a live run, and not at its modules' heads."""
LONGEST = 1 << 17
"""Bytes of one request, words and environment."""


class Program:
    """The process that is forked for each run."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    def run(
        self, *words: str, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the program to its end, stdin from /dev/null and no terminal; any thread may.

        Args:
            words: arguments of the program.
            env: its whole environment.
            timeout: seconds until it is killed.

        Raises:
            subprocess.TimeoutExpired: when it was.
        """
        ours, theirs = os.pipe()
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            open(ours) as status,
        ):
            try:
                request = json.dumps([words, dict(env)]).encode()
                files = [out.fileno(), err.fileno(), theirs]
                socket.send_fds(self._requests, [request], files)
            finally:
                os.close(theirs)
            pid = int(status.readline())
            if not select.select([status], [], [], timeout)[0]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, timeout)
            code = int(status.readline())
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(
                words, code, out.read().decode(), err.read().decode()
            )


@contextmanager
def program() -> Iterator[Program]:
    """Start the process; it ends with the context."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        argv = [sys.executable, "-m", __name__, str(theirs.fileno())]
        with subprocess.Popen(argv, pass_fds=[theirs.fileno()]):
            theirs.close()
            try:
                yield Program(ours)
            finally:
                ours.close()


def serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody can send one."""
    for module in pkgutil.walk_packages(kubectl_ebpfnet.__path__, f"{kubectl_ebpfnet.__name__}."):
        if not module.name.startswith("kubectl_ebpfnet.node"):  # what runs on nodes, elsewhere
            importlib.import_module(module.name)
    for name in LIVE:
        importlib.import_module(name)
    gc.freeze()  # else each fork looks through, and copies, all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runs' business
    while True:
        request, files, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(request), *files)
        for fd in files:
            os.close(fd)


def _watch(request: tuple[list[str], dict[str, str]], out: int, err: int, status: int) -> NoReturn:
    """Fork once more; tell the pid, and the exit code when it has one."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _become(*request, out, err)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody waits for a run that was killed
        os.write(status, f"{code}\n".encode())
    os._exit(0)


def _become(words: Sequence[str], env: Mapping[str, str], out: int, err: int) -> NoReturn:
    """Run the program as the console entry does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for fd, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    sys.exit(app.main(words))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
