"""Findings as text: severity, title, remedy, proof."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Finding
from kubectl_ebpfnet.render.text.evidence import proof
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_GAP = 2


def lines(findings: Sequence[Finding], bundle: Bundle, view: View) -> list[str]:
    """Return the section FINDINGS, [] without findings.

    Args:
        findings: worst first.
        bundle: evidence is quoted from it.
        view: the terminal.
    """
    if not findings:
        return []
    style = Style(view.color)
    column = max(len(f.severity.value) for f in findings) + _GAP
    section = ["FINDINGS"]
    for finding in findings:
        label = style.severity(finding.severity) + " " * (column - len(finding.severity.value))
        section += hanging(label, view.text(finding.title), view.width, column)
        if finding.detail:
            section += hanging(" " * column, view.text(finding.detail), view.width, column)
        if view.evidence:
            section += proof(finding.evidence, bundle, " " * column)
    return section
