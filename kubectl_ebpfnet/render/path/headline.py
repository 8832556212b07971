"""The first and last lines of the text formats of `path`."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.text.captured import captured
from kubectl_ebpfnet.render.text.style import Style, escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap


def opening(path: Path, view: View, *, mtu: bool = False) -> list[str]:
    """Return the headline, cause and fix, and notes on the resolution of the ends.

    Args:
        path: the answer.
        view: the terminal.
        mtu: show the largest packet that fits, also without -v.
    """
    headline = phrases.headline(path)
    # The word gets its colour after the lines are cut: codes take no columns.
    word = "\0" * len(path.verdict.value)
    lines = wrap(escape(headline.before) + word + escape(headline.after), view.width)
    colored = Style(view.color).verdict(path.verdict)
    lines = [line.replace(word, colored) for line in lines]
    for note in phrases.notes(path):
        lines += wrap(escape(note), view.width)
    if path.cause and path.cause not in path.reason:
        lines += hanging("Cause  ", escape(path.cause), view.width)
    if path.fix is not None:
        lines += hanging("Fix    ", escape(path.fix.text), view.width)
        if path.fix.command:
            lines += hanging("       ", escape(path.fix.command), view.width)
    if path.mtu is not None and (mtu or view.evidence):
        lines += hanging("MTU    ", escape(phrases.largest(path.mtu)), view.width)
    return lines


def presumed(path: Path, view: View) -> list[str]:
    """Return what nobody read and was presumed, a line each; [] where more is known."""
    if path.verdict in (Verdict.DELIVERED, Verdict.DROPPED) or not path.presumed:
        return []
    lines = ["NOT READ, and presumed to be as usual"]
    for what in path.presumed:
        lines += hanging("  ", escape(what), view.width)
    return lines


def closing(bundle: Bundle, view: View) -> list[str]:
    """Return when a capture was recorded, and its note, e.g. that it is a replay; [] without."""
    texts = captured(bundle)
    if not texts:
        return []
    return ["CAPTURE", *(line for text in texts for line in wrap(escape(text), view.width))]
