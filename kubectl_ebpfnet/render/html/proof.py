"""Evidence and findings on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Evidence, Finding, Severity
from kubectl_ebpfnet.render.html.elements import Html, tag, text
from kubectl_ebpfnet.render.html.page import section
from kubectl_ebpfnet.render.text.evidence import proof

_LINES = 200
"""Lines of evidence that one place shows."""
_TONES = {Severity.ERROR: "bad", Severity.WARNING: "open", Severity.INFO: "note"}


def proofs(evidence: Iterable[Evidence], bundle: Bundle) -> Html:
    """Return evidence as `-v` shows it: the command, where it ran, and the lines; "" without."""
    lines = proof(evidence, bundle, "")
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"… {len(lines) - _LINES} more lines"]
    return tag("pre", Html("\n".join(map(text, lines)))) if lines else Html()


def unfolding(summary: Html, inside: Html, class_: str) -> Html:
    """Return what opens by a click or Enter, or, with nothing inside, is a plain paragraph."""
    if not inside:
        return tag("p", summary, class_=class_)
    return tag("details", tag("summary", summary), inside, class_=class_)


def findings(found: Sequence[Finding], bundle: Bundle) -> Html:
    """Return the section of findings, worst first; "" without."""
    rows = []
    for each in found:
        head = [tag("strong", each.severity.value, class_="severity"), tag("span", each.title)]
        proven = proofs(each.evidence, bundle)
        body = [tag("p", *head)]
        body += [tag("p", each.detail)] if each.detail else []
        if proven:
            body.append(tag("details", tag("summary", "Evidence"), proven))
        rows.append(tag("li", *body, class_=_TONES[each.severity]))
    return section("Findings", tag("ul", *rows, class_="findings")) if rows else Html()
