"""Defer Ctrl-C, SIGTERM and SIGHUP during a removal that must complete."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class DeferredSignals:
    """Hold signals back inside a `with`, and raise the first of them again at its end, unless an
    exception is already raised.

    Outside the main thread nothing is held back, since only the main thread gets signals.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        """Numbers of the signals held back."""
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # None: a handler that Python did not install and cannot restore.
                if signal.getsignal(number) is not None:
                    self._handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.received and kind is None:
            signal.raise_signal(self.received[0])

    def _record(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  Python's
        self.received.append(number)
