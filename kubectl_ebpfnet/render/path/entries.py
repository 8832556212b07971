"""The nodes by which a client outside enters, a verdict each, in the text formats of `path`."""

from __future__ import annotations

from kubectl_ebpfnet.model.path import Entrance, Entry, Path
from kubectl_ebpfnet.render.text.style import Style, escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap


def entries(path: Path, view: View) -> list[str]:
    """Return a line for each node that a client outside may enter by, and for those that it does
    not; [] for a source in the cluster."""
    entrance = path.outside
    if entrance is None:
        return []
    if len(entrance.entries) == 1 and not (entrance.closed or entrance.left_out):
        # Its verdict is the answer's, which stands above.
        return wrap(escape(f"ENTERS BY  {entrance.entries[0].node}: {entrance.why}"), view.width)
    lines = wrap(escape(f"ENTERS BY  {entrance.why}"), view.width)
    names = [entry.node for entry in entrance.entries] + [each.node for each in entrance.closed]
    longest = max(map(len, map(escape, names)), default=0)
    for entry in entrance.entries:
        lines += _line(entry, longest, view)
    for closed in entrance.closed:
        label = f"  {escape(closed.node):<{longest}}  "
        lines += hanging(label, escape(f"not entered: {closed.why}"), view.width)
    if entrance.more_closed:
        lines += hanging("  ", f"and {entrance.more_closed} more, not entered", view.width)
    if entrance.left_out:
        text = f"and {entrance.left_out} more, not asked: --via node/NAME asks one"
        lines += hanging("  ", text, view.width)
    return lines + _shown(entrance, view)


def _line(entry: Entry, longest: int, view: View) -> list[str]:
    verdict = entry.path.verdict
    reason = entry.path.reason.removeprefix(verdict.value).lstrip(":, ")
    goes_on = entry.path.reason.startswith(f"{verdict.value} ")
    text = escape(f"{' ' if goes_on else ': '}{reason}" if reason else "")
    # The word gets its colour after the lines are cut: codes take no columns.
    word = "\0" * len(verdict.value)
    lines = hanging(f"  {escape(entry.node):<{longest}}  ", word + text, view.width)
    return [line.replace(word, Style(view.color).verdict(verdict)) for line in lines]


def _shown(entrance: Entrance, view: View) -> list[str]:
    others = [entry.node for entry in entrance.entries if entry.node != entrance.shown]
    if not others:
        return []
    text = f"The hops are those by {entrance.shown}; --via node/{others[0]} shows others."
    return wrap(escape(text), view.width)
