"""Changes from one report of `probe-lb --watch` to the next, as lines below the table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kubectl_ebpfnet.model.probe import NodeRow, ProbeReport
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

KEPT = 12
"""Changes that stay on the screen."""
_PLAIN = View()
_Key = tuple[str, str, str]


class Changes:
    """Compares each round of reports with the one before."""

    def __init__(self) -> None:
        self._last: dict[_Key, str] = {}
        self._lines: list[str] = []

    def lines(
        self, reports: Iterable[ProbeReport], now: datetime, view: View = _PLAIN
    ) -> list[str]:
        """Take a round of reports; return the latest changes, the oldest first.

        Args:
            reports: of this round.
            now: time of this round.
            view: the terminal.
        """
        seen = {_key(report, row): _state(row) for report in reports for row in report.rows}
        for key, state in seen.items():
            before = self._last.get(key)
            if before is not None and before != state:
                _, target, node = key
                self._lines.append(f"{now:%H:%M:%S}  {node} at {target}: {before} → {state}")
        for key in self._last.keys() - seen.keys():
            self._lines.append(f"{now:%H:%M:%S}  {key[2]} at {key[1]}: no longer a node to probe")
        if self._last:
            for key in sorted(seen.keys() - self._last.keys()):
                self._lines.append(f"{now:%H:%M:%S}  {key[2]} at {key[1]}: new, {seen[key]}")
        self._last = seen
        self._lines = self._lines[-KEPT:]
        shown = map(view.text, self._lines)
        return [part for line in shown for part in hanging("CHANGED  ", line, view.width)]


def _key(report: ProbeReport, row: NodeRow) -> _Key:
    return (report.request.service, row.target.title, row.node)


def _state(row: NodeRow) -> str:
    """Return the parts of a row whose changes are reported; times and ports always change."""
    words = [row.outcome.value]
    if row.connected:
        words.append(f"source {row.source.value}")
    words.append(f"{row.endpoints.local}/{row.endpoints.total} ready")
    if row.health is not None:
        words.append(f"health {row.health.status or 'timeout'}")
    return ", ".join(words)
