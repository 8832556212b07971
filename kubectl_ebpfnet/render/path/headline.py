"""The first and last lines of the text formats of `path`."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.text.style import Style, escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import wrap


def opening(path: Path, view: View) -> list[str]:
    """Return the headline, and notes on the resolution of the ends."""
    headline = phrases.headline(path)
    first = (
        escape(headline.before) + Style(view.color).verdict(path.verdict) + escape(headline.after)
    )
    return [
        first,
        *(part for note in phrases.notes(path) for part in wrap(escape(note), view.width)),
    ]


def closing(bundle: Bundle, view: View) -> list[str]:
    """Return the bundle's note, e.g. that it is a replay; [] without one."""
    if not bundle.note:
        return []
    return ["CAPTURE", *wrap(escape(bundle.note), view.width)]
