"""`python -m kubectl_ebpfnet.node.netkat`: netcat that this host's netfilter and CNI do not see.

How it works is in docs/architecture.md, "netkat"; this file goes from words to an exit code: 0 on
success, 1 for wrong words, missing rights, a host or port that is none, a connection that fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from kubectl_ebpfnet.errors import EbpfnetError, KernelError
from kubectl_ebpfnet.model.netkat import request as words
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat import connect, resolve, setup
from kubectl_ebpfnet.node.netkat import exec as running
from kubectl_ebpfnet.node.netkat.pcap import Capture
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup


def main(said: list[str]) -> int:
    """Run netkat. Returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ended by it at once: what we hold goes in the right order then (kat/attach.py).
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        request = words.request(said)
        if request is None:
            print(words.USAGE, end="")
            return 0
        return _listen(request) if request.listen else _connect(request)
    except BrokenPipeError:
        return 1  # nobody reads our stdout any more: that is no news
    except EbpfnetError as error:
        print(f"netkat: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"netkat: {error.hint}", file=sys.stderr)
    except OSError as error:
        print(f"netkat: {error}", file=sys.stderr)
    return 1


def _connect(request: Request) -> int:
    """To the first of the host's addresses that answers."""
    problem: KernelError | None = None
    for peer, scope in resolve.addresses(request):
        if problem is not None:
            _say(request, f"{problem.message}; the next address is {peer}")
        with contextlib.ExitStack() as stack:
            try:
                laid = setup.to_peer(stack, request, peer, scope, tcx=_tcx())
                _say(request, f"{laid.way.device.name}, {laid.way.sources[0]} port"
                     f" {laid.first_port}, next hop {laid.way.gateway or 'on the link'},"
                     f" {laid.attached.how}")  # fmt: skip
                if request.command:
                    # Before the capture, which has a thread: a process with threads must not fork.
                    started = stack.enter_context(running.started(laid, request))
                    _capture(stack, request, laid)
                    return started.run()
                _capture(stack, request, laid)
                one = connect.connected(laid, request, peer)
                stack.callback(connect.hang_up, one)
            except KernelError as error:
                problem = error
                continue
            _say(request, f"connected to {peer} port {request.port}")
            connect.exchange(one, request)
            return 0
    assert problem is not None
    raise problem


def _listen(request: Request) -> int:
    address = resolve.addresses(request)[0][0]
    with contextlib.ExitStack() as stack:
        laid = setup.to_clients(stack, request, address, tcx=_tcx())
        _capture(stack, request, laid)
        waiting = connect.listen(laid, request)
        for one in waiting:
            stack.callback(connect.hang_up, one)
        _say(request, f"listening on {', '.join(laid.way.sources)} port {request.port},"
             f" {laid.way.device.name}, {laid.attached.how}")  # fmt: skip
        connect.serve(waiting, request)
    return 0


def _capture(stack: contextlib.ExitStack, request: Request, laid: NetkatSetup) -> None:
    if request.debug or request.pcap:
        stack.callback(Capture(laid, debug=request.debug, pcap=request.pcap).close)


def _tcx() -> bool:
    """False as on a kernel before 6.6: for tests, and where tcx is not wanted."""
    return not os.environ.get("EBPFNET_NO_TCX")


def _say(request: Request, text: str) -> None:
    if request.verbose:
        print(f"netkat: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)  # threads may still wait for stdin or the peer
