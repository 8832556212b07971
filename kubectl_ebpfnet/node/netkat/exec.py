"""`--exec -- CMD...`: a program in the connection's network namespace.

It runs under a process that is the first of a PID namespace of its own: when netkat ends, in
whatever way, that one is killed (PR_SET_PDEATHSIG) and the kernel ends all that the program started
(pid_namespaces(7)), so nothing holds the network namespace any longer.
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
# FIN_WAIT1, LAST_ACK and CLOSING: what a socket is in while its end is still to be acknowledged
_SENDING = frozenset({"04", "09", "0B"})
_STEP_S = 0.005
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def started(laid: NetkatSetup, request: Request) -> Iterator[Started]:
    """Have a process in which `Started.run` runs the program; it is gone at the end of the block.

    Raises:
        KernelError: no PID namespace can be made (EPERM).
    """
    if _libc.unshare(_CLONE_NEWPID):
        code = ctypes.get_errno()
        raise KernelError(
            f"make a PID namespace: {os.strerror(code)}", code, hint="CAP_SYS_ADMIN allows it"
        )
    ours = os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides what an interrupt means
    waits, go = os.pipe()
    pid = os.fork()
    if not pid:
        code = _NOT_RUN
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.close(go)
            if os.read(waits, 1):
                with laid.private.inside():
                    found = {"NETKAT_ADDRESS": laid.near, "NETKAT_PORT": str(request.port)}
                    code = _first_process(request.command, {**os.environ, **found}, ours)
        finally:
            os._exit(code)
    os.close(waits)
    one = Started(pid, go, laid, request)
    try:
        yield one
    finally:
        one.end()


class Started:
    """The process that waits for the word to run the program."""

    def __init__(self, pid: int, go: int, laid: NetkatSetup, request: Request) -> None:
        self._pid, self._go = pid, go
        self._laid, self._request = laid, request

    def run(self) -> int:
        """Run the program until it ends, with our stdin, stdout and stderr.

        It may connect to the peer by its own address, or by another one, but not by both at once:
        in NETKAT_ADDRESS it finds one that no socket load-balancer turns into a backend of a
        service. The port is in NETKAT_PORT.

        Returns:
            Its exit code; 128 and the signal's number when one ended it; 127 when there is no such
            program, 126 when it cannot be run.
        """
        os.write(self._go, b".")
        status = self.end()
        _until_acknowledged(self._laid, self._request.wait)
        return _exit_code(status)

    def end(self) -> int:
        """Wait for the process, which ends at once when it was not told to run anything."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1
            _, self._status = os.waitpid(self._pid, 0)
        return self._status


def _first_process(command: tuple[str, ...], env: dict[str, str], ours: int) -> int:
    """Start the program, collect whatever ends, and give the program's exit code."""
    if not Path(f"/proc/{ours}").exists():
        return _NOT_RUN  # netkat ended before PR_SET_PDEATHSIG was set
    program = os.fork()
    if not program:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python has it ignored
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


def _until_acknowledged(laid: NetkatSetup, wait: float) -> None:
    """Wait until what the program's sockets had to send has reached the peer."""
    end = time.monotonic() + wait
    with laid.private.inside():
        while time.monotonic() < end and _still_sending():
            time.sleep(_STEP_S)


def _still_sending() -> bool:
    for name in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue  # without IPv6 there is no tcp6
        if any(row.split()[3] in _SENDING for row in rows):
            return True
    return False
