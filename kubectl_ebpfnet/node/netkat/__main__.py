"""`python -m kubectl_ebpfnet.node.netkat`: netcat that bypasses this host's netfilter and CNI.

docs/netkat.md tells how it works. This file turns arguments into an exit code: 0 on success, 1 for
wrong arguments, missing rights, a bad host or port, a connection that fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from kubectl_ebpfnet.errors import EbpfnetError, KernelError
from kubectl_ebpfnet.model.netkat import request as netkat_request
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat import connect, resolve
from kubectl_ebpfnet.node.netkat.exec import exec_child
from kubectl_ebpfnet.node.netkat.pcap import Capture
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup, set_up_for_clients, set_up_for_peer


def main(arguments: list[str]) -> int:
    """Run netkat. Returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # SIGINT ends the process at once: the kernel releases everything in the right order.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        request = netkat_request.parse(arguments)
        if request is None:
            print(netkat_request.USAGE, end="")
            return 0
        return _listen(request) if request.listen else _connect(request)
    except BrokenPipeError:
        return 1  # the reader of stdout is gone, which needs no message
    except EbpfnetError as error:
        print(f"netkat: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"netkat: {error.hint}", file=sys.stderr)
    except OSError as error:
        print(f"netkat: {error}", file=sys.stderr)
    return 1


def _connect(request: Request) -> int:
    """Connect to the first of the host's addresses that answers."""
    problem: KernelError | None = None
    for peer, scope in resolve.addresses(request):
        if problem is not None:
            _log(request, f"{problem.message}; the next address is {peer}")
        with contextlib.ExitStack() as stack:
            try:
                setup = set_up_for_peer(stack, request, peer, scope)
                _log(request, f"{setup.route.device.name}, {setup.route.sources[0]} port"
                     f" {setup.first_port}, next hop {setup.route.gateway or 'on the link'},"
                     f" {setup.programs.method}")  # fmt: skip
                if request.command:
                    # Before the capture, which has a thread: a process with threads must not fork.
                    started = stack.enter_context(exec_child(setup, request))
                    _capture(stack, request, setup)
                    return started.run()
                _capture(stack, request, setup)
                sock = connect.connect_to_peer(setup, request, peer)
                stack.callback(connect.hang_up, sock)
            except KernelError as error:
                problem = error
                continue
            _log(request, f"connected to {peer} port {request.port}")
            connect.transfer(sock, request)
            return 0
    assert problem is not None
    raise problem


def _listen(request: Request) -> int:
    address = resolve.addresses(request)[0][0]
    with contextlib.ExitStack() as stack:
        setup = set_up_for_clients(stack, request, address)
        _capture(stack, request, setup)
        listeners = connect.listen(setup, request)
        for sock in listeners:
            stack.callback(connect.hang_up, sock)
        _log(request, f"listening on {', '.join(setup.route.sources)} port {request.port},"
             f" {setup.route.device.name}, {setup.programs.method}")  # fmt: skip
        connect.serve_clients(listeners, request)
    return 0


def _capture(stack: contextlib.ExitStack, request: Request, setup: NetkatSetup) -> None:
    if request.debug or request.pcap:
        stack.callback(Capture(setup, debug=request.debug, pcap=request.pcap).close)


def _log(request: Request, text: str) -> None:
    if request.verbose:
        print(f"netkat: {text}", file=sys.stderr, flush=True)


def start() -> NoReturn:
    """Run netkat by hand: the command `netkat`."""
    code = main(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)  # threads may still wait for stdin or the peer


if __name__ == "__main__":
    start()
