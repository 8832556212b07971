"""A process beside this one that answers requests: a fork, which takes them from a pipe.

Threads would wait for each other: what reads a long table is in Python half of the time. Its
answers are a file in memory: a pipe holds 64 KiB, so the second table would wait until somebody
takes the entries of the first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import BinaryIO


class Helper:
    """A fork that answers requests until it has their end. This process must have no threads."""

    def __init__(self, serve: Callable[[BinaryIO, BinaryIO], object]) -> None:
        """Fork.

        Args:
            serve: answers requests; it runs in the fork.
        """
        theirs, to_helper = os.pipe()
        self._answers = os.fdopen(os.memfd_create("answers"), "w+b")
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                os.close(to_helper)
                with os.fdopen(theirs, "rb") as requests:
                    serve(requests, self._answers)
                self._answers.flush()
                code = 0
            finally:
                os._exit(code)  # never back into this process's work
        os.close(theirs)
        self._requests = os.fdopen(to_helper, "wb")

    def ask(self, request: bytes) -> None:
        """Hand a request over, a line. One that was killed answers nothing, which the client says.

        Args:
            request: ends with its newline.
        """
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(request)
            self._requests.flush()

    def finish(self, out: BinaryIO) -> None:
        """Wait for the answers, and write them."""
        # A later helper has this pipe too: closing it is no end.
        self.ask(b'{"end": true}\n')
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        with self._answers:
            self._answers.seek(0)
            shutil.copyfileobj(self._answers, out)
        out.flush()
