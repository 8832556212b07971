"""What stands above and below the hops: the verdict, cause, what was seen, fix, the capture."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import columns, command, hanging, wrap

VERDICT = 11
"""Columns of the verdict's word and its gap: the longest is DELIVERED."""
LABEL = 8
"""Columns of the word before a paragraph, and its gap."""


def verdict_lines(path: Path, view: View) -> list[str]:
    """Return the verdict, from → to; then what decides, and how the ends were resolved."""
    indent = " " * VERDICT
    word = path.verdict.value.upper()
    first, *more = hanging(f"{word:<{VERDICT}}", view.text(phrases.ends_of(path)), view.prose)
    lines = [first.replace(word, Style(view.color).verdict_word(path.verdict), 1), *more]
    for text in (*because(path), *phrases.notes(path)):
        lines += hanging(indent, view.text(text), view.prose)
    return lines


def because(path: Path) -> tuple[str, ...]:
    """Return what decides, a line each."""
    if path.because or not path.reason:
        return path.because
    return (path.reason.removeprefix(path.verdict.value).lstrip(":, "),)


def paragraphs(path: Path, bundle: Bundle, view: View, *, in_full: bool) -> list[str]:
    """Return the cause, what was seen, and what to do; each word stands only before something.

    Args:
        path: the answer.
        bundle: what it was made of.
        view: the terminal.
        in_full: also the largest packet that fits.
    """
    lines: list[str] = []
    if path.cause and path.cause not in path.reason and path.cause not in because(path):
        lines += _paragraph("Cause", path.cause, view)
    for number, text in enumerate(path.seen):
        lines += _paragraph("" if number else "Seen", text, view)
    if path.fix is not None:
        lines += _paragraph("Fix", path.fix.text, view)
        if path.fix.command:
            lines += command(" " * LABEL, view.text(path.fix.command), view.width)
        if cluster := phrases.meant_for(path.fix, bundle):
            lines += _paragraph("", cluster, view)
    if path.mtu is not None and in_full and path.verdict is not Verdict.DROPPED:
        lines += _paragraph("MTU", phrases.largest(path.mtu), view)
    return lines


def _paragraph(label: str, text: str, view: View) -> list[str]:
    return hanging(f"{label:<{LABEL}}", view.text(text), view.prose)


def presumed(path: Path, view: View) -> list[str]:
    """Return what nobody read and was presumed, a line each; [] where more is known."""
    if path.verdict in (Verdict.DELIVERED, Verdict.DROPPED) or not path.presumed:
        return []
    lines = ["Not read, and presumed to be as usual:"]
    for what in path.presumed:
        lines += hanging("  ", view.text(what), view.prose)
    return lines


def closing(bundle: Bundle, view: View, *, in_full: bool) -> list[str]:
    """Return a line about a capture: its date, and what fits of its note; [] for a live run.

    Args:
        bundle: the records.
        view: the terminal.
        in_full: the whole note.
    """
    at = f"Recorded {bundle.recorded}; ages are as of then" if bundle.recorded else ""
    text = view.text(": ".join(part for part in (at, bundle.note) if part))
    if not text:
        return []
    if in_full or not view.width or columns(text) <= view.prose:
        return hanging("", text, view.prose)
    if at:
        clauses = bundle.note.split("; ")
        shorter = (f"{at}: {'; '.join(clauses[:n])}" for n in range(len(clauses) - 1, 0, -1))
        fits = (line for line in map(view.text, shorter) if columns(line) <= view.prose)
        return hanging("", next(fits, view.text(at)), view.prose)
    dots = view.text("…")
    return [wrap(text, view.prose - len(dots))[0].rstrip() + dots]
