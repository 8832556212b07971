"""`--exec -- CMD...`: run a program in the connection's network namespace.

Its parent is the first process of a PID namespace: when netkat ends, in whatever way, the kernel
kills that process (PR_SET_PDEATHSIG) and with it all processes of the program
(pid_namespaces(7)), so none keeps the network namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup

_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_NOT_FOUND, _NOT_RUN = 127, 126
# FIN_WAIT1, LAST_ACK and CLOSING: states of a socket whose FIN is not acknowledged yet
_SENDING = frozenset({"04", "09", "0B"})
_STEP_S = 0.005
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def exec_child(setup: NetkatSetup, request: Request) -> Iterator[ExecChild]:
    """Fork the process in which `ExecChild.run` runs the program; it ends with the block.

    Args:
        setup: the path.
        request: netkat's options.

    Raises:
        KernelError: no PID namespace can be made (EPERM).
    """
    if _libc.unshare(_CLONE_NEWPID):
        code = ctypes.get_errno()
        raise KernelError(
            f"make a PID namespace: {os.strerror(code)}", code, hint="CAP_SYS_ADMIN allows it"
        )
    parent = os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides what an interrupt means
    waiting_end, go_end = os.pipe()
    pid = os.fork()
    if not pid:
        code = _NOT_RUN
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.close(go_end)
            if os.read(waiting_end, 1):
                with setup.netns.inside():
                    address, port = setup.peer_address, str(request.port)
                    variables = {"NETKAT_ADDRESS": address, "NETKAT_PORT": port}
                    code = _first_process(request.command, {**os.environ, **variables}, parent)
        finally:
            os._exit(code)
    os.close(waiting_end)
    child = ExecChild(pid, go_end, setup, request)
    try:
        yield child
    finally:
        child.end()


class ExecChild:
    """The process that runs the program on command."""

    def __init__(self, pid: int, go_end: int, setup: NetkatSetup, request: Request) -> None:
        """
        Args:
            pid: of the process.
            go_end: a byte on this end of a pipe is the command to run the program.
            setup: the path.
            request: netkat's options.
        """
        self._pid, self._go_end = pid, go_end
        self._setup, self._request = setup, request

    def run(self) -> int:
        """Run the program until it ends, with our stdin, stdout and stderr.

        A connection may use the peer's own address, or its stand-in in NETKAT_ADDRESS, which no
        socket load-balancer translates to a backend of a service. The port is in NETKAT_PORT.

        Returns:
            The exit code; 128 plus the signal's number for a signal; 127 when there is no such
            program, 126 when it cannot be run.
        """
        os.write(self._go_end, b".")
        status = self.end()
        _until_acknowledged(self._setup, self._request.wait)
        return _exit_code(status)

    def end(self) -> int:
        """Wait for the process, which ends at once without a command to run."""
        if self._go_end >= 0:
            os.close(self._go_end)
            self._go_end = -1
            _, self._status = os.waitpid(self._pid, 0)
        return self._status


def _first_process(command: tuple[str, ...], env: dict[str, str], parent: int) -> int:
    """Start the program, reap all children, and return the program's exit code."""
    if not Path(f"/proc/{parent}").exists():
        return _NOT_RUN  # netkat ended before PR_SET_PDEATHSIG was set
    program = os.fork()
    if not program:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
            os.execvpe(command[0], command, env)  # noqa: S606  the user's own words, no shell
        except OSError as error:
            print(f"netkat: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN)
    while True:
        pid, status = os.wait()
        if pid == program:
            return _exit_code(status)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _until_acknowledged(setup: NetkatSetup, wait: float) -> None:
    """Wait until the peer has acknowledged all data of the program's sockets."""
    end = time.monotonic() + wait
    with setup.netns.inside():
        while time.monotonic() < end and _still_sending():
            time.sleep(_STEP_S)


def _still_sending() -> bool:
    for name in ("tcp", "tcp6"):
        try:
            sockets = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue  # without IPv6 there is no tcp6
        if any(row.split()[3] in _SENDING for row in sockets):
            return True
    return False
