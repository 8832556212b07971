"""What `netkat` reads and writes on this machine, and what is said when that fails."""

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
def opened(pcap: str) -> Iterator[Streams]:
    """The streams of a session; errors in writing them become the run's end.

    Args:
        pcap: the file for packets, "" for none; what is in it is replaced.

    Raises:
        ReaderGone: nobody reads stdout or stderr any more.
        EbpfnetError: the file cannot be opened, or an output not be written.
    """
    from kubectl_ebpfnet.active.netkat import Streams

    with contextlib.ExitStack() as stack:
        # Where one is closed, its number may be somebody else's by now.
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
