"""A process beside this one that answers requests: a fork, spoken to by two pipes.

Threads would wait for each other: what reads a long table is in Python half of the time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import BinaryIO


class Helper:
    """A fork that answers requests until it has their end. This process must have no threads."""

    def __init__(self, serve: Callable[[BinaryIO, BinaryIO], int]) -> None:
        """Fork.

        Args:
            serve: answers requests; it runs in the fork.
        """
        theirs, to_helper = os.pipe()
        from_helper, ours = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                os.close(to_helper)
                os.close(from_helper)
                with os.fdopen(theirs, "rb") as requests, os.fdopen(ours, "wb") as answers:
                    code = serve(requests, answers)
            finally:
                os._exit(code)  # never back into this process's work
        os.close(theirs)
        os.close(ours)
        self._requests, self._answers = os.fdopen(to_helper, "wb"), os.fdopen(from_helper, "rb")

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
        with self._answers:
            self._answers.readline()  # its greeting
            shutil.copyfileobj(self._answers, out)
        out.flush()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
