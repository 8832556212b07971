"""A process beside this one that answers some of the requests: a fork.

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
    """A fork that writes answers. This process must have no threads."""

    def __init__(self, write: Callable[[BinaryIO], object]) -> None:
        """Fork.

        Args:
            write: writes the answers; it runs in the fork.
        """
        self._answers = os.fdopen(os.memfd_create("answers"), "w+b")
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                write(self._answers)
                self._answers.flush()
                code = 0
            finally:
                os._exit(code)  # never back into this process's work

    def finish(self, out: BinaryIO) -> None:
        """Wait for the answers, and write them. One that was killed has answered less, which the
        client says."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        with self._answers:
            self._answers.seek(0)
            shutil.copyfileobj(self._answers, out)
        out.flush()
