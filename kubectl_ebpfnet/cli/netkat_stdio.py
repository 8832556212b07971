"""The local streams of a `netkat` session, and their errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.terminal import ReaderGone
from kubectl_ebpfnet.errors import EbpfnetError

if TYPE_CHECKING:
    from kubectl_ebpfnet.active.netkat import Streams


@contextlib.contextmanager
def open_streams(pcap: str) -> Iterator[Streams]:
    """Open the streams of a session; a failed write ends the run.

    Args:
        pcap: file to write packets to, "" for none; an existing file is overwritten.

    Raises:
        ReaderGone: the reader of stdout or stderr closed the pipe.
        EbpfnetError: the file cannot be opened, or an output cannot be written.
    """
    from kubectl_ebpfnet.active.netkat import Streams

    if sys.platform == "win32":
        raise EbpfnetError(
            "netkat does not run on Windows, which cannot wait for stdin and a socket at once",
            hint="run it in WSL, where kubectl ebpfnet is a program of Linux",
        )
    with contextlib.ExitStack() as stack:
        # The number of a closed standard stream may belong to another file by now.
        nowhere = stack.enter_context(open(os.devnull, "wb")).fileno()
        stdin = 0 if sys.stdin is not None else None
        stdout = 1 if sys.stdout is not None else nowhere
        stderr = 2 if sys.stderr is not None else nowhere
        streams = Streams(stdin, stdout, stderr, _file(stack, pcap))
        try:
            yield streams
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise EbpfnetError(f"cannot write: {error.strerror or error}") from error


def _file(stack: contextlib.ExitStack, path: str) -> int | None:
    if not path:
        return None
    try:
        return stack.enter_context(open(path, "wb")).fileno()
    except OSError as error:
        raise EbpfnetError(f"cannot write --pcap {path}: {error.strerror}") from error
