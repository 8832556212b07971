"""The lines that every answer for a reader begins with."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.render import phrases
from kubectl_ebpfnet.render.style import Style, escape
from kubectl_ebpfnet.render.view import View
from kubectl_ebpfnet.render.wrap import wrap


def opening(path: Path, bundle: Bundle, view: View) -> list[str]:
    """The headline, how the ends were resolved, and what is to be known of the bundle."""
    line = phrases.headline(path)
    said = escape(line.before) + Style(view.color).verdict(path.verdict) + escape(line.after)
    rest = [*phrases.notes(path), *([bundle.note] if bundle.note else [])]
    return [said, *(part for note in rest for part in wrap(escape(note), view.width))]
