"""The program: its commands, its exit codes, and its messages for errors and signals.

Exit codes: 0 delivered (or done), 1 error, 2 usage, 3 dropped, 4 unknown; 130 after an interrupt,
143 after a SIGTERM, 141 when the reader of stdout is gone, as a shell reports for kubectl.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from kubectl_ebpfnet.cli.terminal import ReaderGone, WatchEnded, print_error, write_utf8
from kubectl_ebpfnet.errors import EbpfnetError

if TYPE_CHECKING:
    from types import FrameType

    from kubectl_ebpfnet.cli.help import Commands

_COLLECT_AFTER = 200_000  # objects
USAGE, INTERRUPTED, READER_GONE, TERMINATED = 2, 130, 141, 143

ABOUT = """Follow a packet through a Cilium cluster, hop by hop, with the proof of each hop.

It reads with the rights of your kubeconfig; only probe-lb and netkat send, and
load programs. Where no Cilium agent answers, a node pod is deployed for the
run, if you say so, and deleted after it."""
EXAMPLES = """  # Without a cluster, from recordings of a real one: delivered, dropped, unknown
  kubectl ebpfnet path pod/client 1.1.1.1:80 --from demo
  kubectl ebpfnet path pod/client 1.1.1.1:7777 --from demo:dropped
  kubectl ebpfnet path pod/client 1.1.1.1:7777 --from demo:unknown

  # What happens to a packet from a pod to an address outside?
  kubectl ebpfnet path pod/client 1.1.1.1:80
"""
COMMANDS = {
    "path": "Show every hop of a packet, with its evidence",
    "trace": "Follow packets as they pass, on every node of their way",
    "programs": "Show every BPF program that acts on a pod or a node",
    "flows": "List tracked connections (Cilium CT, NAT, nf_conntrack)",
    "probe-lb": "Probe a LoadBalancer through every node, as an external client would",
    "netkat": "Netcat from a node, bypassing its netfilter, socket LB and CNI",
    "doctor": "Check what each command can see of this cluster, and what it lacks",
    "capture": "Record a cluster's state in a file, for --from",
    "show-record": "Print a record of a capture, by its number in -o wide or -v",
    "node-pods": "List the node pods of this cluster, or print a manifest of some",
    "cleanup": "Delete leftover node pods and namespaces",
    "completion": "Print or install shell completion for kubectl ebpfnet",
    "options": "List the kubectl flags that every command accepts",
    "version": "Print the version",
}


class _Terminated(BaseException):
    """SIGTERM or SIGHUP was received."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: the words after the program's name; None takes them from sys.argv.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] == ["__complete"]:
        complete(words[1:])
    # A run ends within seconds: collecting after each 700 objects takes a tenth of its imports.
    gc.set_threshold(_COLLECT_AFTER)
    signal.signal(signal.SIGTERM, _terminate)
    # A closed terminal must not leave a node pod behind; under nohup the run continues. Windows has
    # no such signal.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        signal.signal(hangup, _terminate)
    sys.unraisablehook = _send_again
    if sys.platform == "win32":
        write_utf8()
    try:
        code = _run(words)
    except EbpfnetError as error:
        print_error(error.message, error.hint, _usage(words) if error.exit_code == USAGE else "")
        return error.exit_code
    except ReaderGone:
        return READER_GONE
    except WatchEnded:
        _exit_now(INTERRUPTED)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (_Terminated, SystemExit) as end:
        # Code that cleans up on SIGTERM may raise a SystemExit with the same code.
        if isinstance(end, SystemExit) and end.code != TERMINATED:
            raise
        print_error("terminated")
        _exit_now(TERMINATED)
    except Exception as error:
        return _internal_error(error, words)
    if code == INTERRUPTED:
        print_error("interrupted")
        _exit_now(INTERRUPTED)
    return code


def start() -> NoReturn:
    """Run the program and end at once: to take the interpreter down would cost another 30 ms."""
    _exit_now(main())


def complete(words: Sequence[str] | None = None) -> NoReturn:
    """Answer a shell: `kubectl_complete-ebpfnet`.

    Args:
        words: the words after the program's name; None takes them from sys.argv.
    """
    from kubectl_ebpfnet.cli.completion.main import main as answer

    answer(sys.argv[1:] if words is None else words, commands)


def _run(words: list[str]) -> int:
    from typer import Exit, TyperException

    from kubectl_ebpfnet.cli.help import PROGRAM

    if words[:1] == ["__complete"]:
        from kubectl_ebpfnet.cli.completion.main import answered
        from kubectl_ebpfnet.cli.terminal import emit

        emit(answered(words[1:], commands))
        return 0
    try:
        code = commands().main(normalize(words), prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:
        from kubectl_ebpfnet.cli.usage_errors import as_usage_error

        raise as_usage_error(error) from error
    except Exit as error:
        return error.exit_code
    return code if isinstance(code, int) else 0


def commands() -> Commands:
    """Return the group of all commands; a command's module is imported when it is used."""
    from kubectl_ebpfnet.cli.help import SETTINGS, Commands

    group = Commands(
        name="ebpfnet",
        help=ABOUT,
        epilog=EXAMPLES,
        context_settings=dict(SETTINGS),
        rich_markup_mode=None,
    )
    group.summaries = COMMANDS
    return group


def normalize(words: list[str]) -> list[str]:
    """Rewrite common forms to typer's: no words, `help [COMMAND]`, `--version`, flags first."""
    if not words:
        return ["--help"]
    if words[0] == "help":
        return [*words[1:2], "--help"]
    if words[0] == "--version":
        return ["version", *words[1:]]
    if words[0].startswith("-") and words[0] not in ("-h", "--help"):
        from kubectl_ebpfnet.cli.flags import move_flags_behind_command

        words = move_flags_behind_command(words)
    if words[0] == "netkat":
        from kubectl_ebpfnet.cli.netkat_arguments import separate_options

        return separate_options(words)
    return words


def _usage(words: Sequence[str]) -> str:
    """Return the line that names the help of the command, as kubectl ends a wrong command line."""
    command = next((f"{word} " for word in words if word in COMMANDS), "")
    return f"See 'kubectl ebpfnet {command}--help' for usage."


def _internal_error(error: Exception, words: Sequence[str]) -> int:
    if os.environ.get("EBPFNET_DEBUG") or _wants_tracebacks(words):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    print_error(
        f"internal error: {type(error).__name__}: {error}",
        "this is a bug, please report it; -v=9 or EBPFNET_DEBUG=1 prints the traceback",
    )
    return 1


def _wants_tracebacks(words: Sequence[str]) -> bool:
    return re.search(r" --?v[= ]?(9|10)( |$)", " ".join(["", *words])) is not None


def _terminate(*_: object) -> None:
    raise _Terminated


def _send_again(ignored: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was raised in a destructor: Python drops it there, and
    the run would go on. A thread sends it, once the destructor has ended, and again until it is
    handled: one that comes just before a system call is handled only after that."""
    import _thread  # for this alone
    import threading

    lost = {KeyboardInterrupt: signal.SIGINT, _Terminated: signal.SIGTERM}.get(ignored.exc_type)
    if lost is None:
        sys.__unraisablehook__(ignored)
        return
    handled, main_thread = threading.Event(), threading.main_thread().ident or 0

    def handle(_number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is _send_again.__code__:
                return  # raised in this hook, it would be dropped again
            frame = frame.f_back
        handled.set()
        raise ignored.exc_type

    def send() -> None:
        while not handled.wait(0.02):
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main_thread, lost)
            else:  # Windows
                _thread.interrupt_main(lost)

    signal.signal(lost, handle)
    threading.Thread(target=send, daemon=True).start()


def _exit_now(code: int) -> NoReturn:
    # Threads may still wait for answers of the cluster: do not wait for them. What was registered
    # to be removed at the end (the kubernetes library's files of certificates) is removed.
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)
