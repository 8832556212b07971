"""The nodes by which a client outside enters, a verdict each, in the text formats of `path`."""

from __future__ import annotations

from kubectl_ebpfnet.model.path import Entrance, Entry, Path, Verdict
from kubectl_ebpfnet.render.path.headline import LABEL, VERDICT, because
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_MARKS = {Verdict.DELIVERED: "✓", Verdict.DROPPED: "✗", Verdict.UNKNOWN: "?"}


def entries(path: Path, view: View) -> list[str]:
    """Return a line for each node that a client outside may enter by, and for those that it does
    not; [] for a source in the cluster."""
    entrance = path.outside
    if entrance is None:
        return []
    if len(entrance.entries) == 1 and not (entrance.closed or entrance.left_out):
        # Its verdict is the answer's, which stands above.
        text = f"{entrance.entries[0].node}: {entrance.why}"
        return hanging(f"{'Enters':<{LABEL}}", view.text(text), view.prose)
    lines = hanging(f"{'Enters':<{LABEL}}", view.text(entrance.why), view.prose)
    names = [entry.node for entry in entrance.entries] + [each.node for each in entrance.closed]
    longest = max((len(view.text(name)) for name in names), default=0)
    for entry in entrance.entries:
        lines += _line(entry, longest, view)
    for closed in entrance.closed:
        label = f" - {view.text(closed.node):<{longest}}  "
        lines += hanging(label, view.text(f"not entered: {closed.why}"), view.prose)
    if entrance.more_closed:
        lines += hanging("   ", f"and {entrance.more_closed} more, not entered", view.prose)
    if entrance.left_out:
        text = f"and {entrance.left_out} more, not asked: --via node/NAME asks one"
        lines += hanging("   ", text, view.prose)
    return lines + _shown(entrance, view)


def _line(entry: Entry, longest: int, view: View) -> list[str]:
    verdict, style = entry.path.verdict, Style(view.color)
    mark, word = _MARKS.get(verdict, "~"), verdict.value.upper()
    shown, node = view.text(mark), f" {view.text(entry.node):<{longest}}  "
    begin = f" {shown}{node}{word}"
    # The first line decides; what speaks against it is never left out.
    lines = because(entry.path)
    text = "; ".join(lines if entry.path.contradictions else lines[:1])
    first, *more = hanging(
        f"{begin:<{len(begin) - len(word) + VERDICT}}", view.text(text), view.prose
    )
    # Codes take no columns: the words get their colours after the lines are cut.
    colored = f" {style.mark(mark, shown)}{node}{style.verdict_word(verdict)}"
    return [colored + first[len(begin) :], *more]


def _shown(entrance: Entrance, view: View) -> list[str]:
    others = [entry.node for entry in entrance.entries if entry.node != entrance.shown]
    if not others:
        return []
    text = f"The hops are those by {entrance.shown}; --via node/{others[0]} shows others."
    return hanging("", view.text(text), view.prose)
