"""The deadline of a run, and the sentence for what did not come in time."""

from __future__ import annotations

import time


class Deadline:
    """A point in time by which a run has to end."""

    def __init__(self, seconds: float | None, option: str = "--timeout") -> None:
        """`seconds` count from now, None means no limit; `option` sets them, "" for a constant."""
        self.seconds = seconds
        self._option = option
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Remaining seconds, at least 0; None for no limit."""
        return self.left_and(0.0)

    def left_and(self, grace: float) -> float | None:
        """Return the seconds until `grace` seconds after the deadline, at least 0; None for no
        limit."""
        return None if self._end is None else max(0.0, self._end + grace - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Move the deadline on by time that does not count: somebody was asked a question."""
        if self._end is not None:
            self._end += seconds

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self._end is not None and time.monotonic() >= self._end

    def missed(self, what: str = "no answer") -> str:
        """Return the sentence for what did not come in time, without its subject."""
        allowed = f"the {self.seconds:g} s that {self._option} allows"
        return f"{what} within {allowed if self._option else f'{self.seconds:g} s'}"
