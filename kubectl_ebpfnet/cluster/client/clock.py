"""The API server's clock, by the `Date` of its answers (RFC 9110, section 6.6.1).

Whatever a cluster dates (objects, leases, Hubble's flows) is dated by its clocks, which agree. A
laptop's may be hours off: by it, somebody's live run would be long over, and an old flow of now.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_SECOND = timedelta(seconds=1)  # the unit of `Date`
_WORTH_A_WORD = timedelta(seconds=60)


class ServerClock:
    """The clock of one API server. Threads may share it; until an answer came it is the local one.

    Attributes:
        ahead: the server's clock less the local one, as little as its answers allow.
    """

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC) + self.ahead

    def learn(self, date: str, asked: datetime) -> None:
        """Take the `Date` of an answer that came just now.

        Args:
            date: of the header, "" without one.
            asked: local time of the request.
        """
        from email.utils import parsedate_to_datetime  # urllib3 has it already

        try:
            then = parsedate_to_datetime(date)
        except ValueError:
            return
        if then.tzinfo is None:
            return
        # The answer was dated between the request and now, rounded down.
        early, late = asked - _SECOND, datetime.now(UTC)
        self.ahead = max(then - late, timedelta(0)) or min(then - early, timedelta(0))

    @property
    def remark(self) -> str:
        """A line for whoever has a clock that differs by a minute and more, else ""."""
        if abs(self.ahead) < _WORTH_A_WORD:
            return ""
        hours, minutes = divmod(round(abs(self.ahead).total_seconds() / 60), 60)
        span = f"{hours} h {minutes} min" if hours else f"{minutes} min"
        how = "behind" if self.ahead > timedelta(0) else "ahead of"
        return f"this machine's clock is {span} {how} the API server's; the server's counts"
