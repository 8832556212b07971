"""The page around an answer: one file that loads nothing and runs nothing.

Its policy (w3.org/TR/CSP3) allows the one style sheet, by its hash: no script, image, font, frame,
form or connection, so that what a name smuggles in would have no effect even if it were markup.
Evidence opens by `<details>`, which needs no script for a click, for Enter or for print.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from kubectl_ebpfnet.model.evidence import LIVE, Bundle
from kubectl_ebpfnet.render.html.elements import Html, tag
from kubectl_ebpfnet.render.text.captured import captured

_SHEET = "page.css"


def page(title: str, *inside: str) -> str:
    """Return a whole document.

    Args:
        title: of the tab, untrusted text.
        inside: of the body; what is not Html is escaped.
    """
    style = resources.files(__package__).joinpath(_SHEET).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        # Before all that it governs.
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        tag("title", title),
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        tag("main", *inside),
        "</body>",
        "</html>",
    ]
    # In ASCII it is the same page whatever stdout, or whoever passes it on, takes its bytes for.
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode("ascii") + "\n"


def opening(word: str, tone: str, title: str, *inside: str) -> Html:
    """Return the top of an answer.

    Args:
        word: the verdict.
        tone: `good`, `bad` or `open`: its colour.
        title: what was asked, one line.
        inside: reason, cause, fix.
    """
    badge = tag("strong", word, class_="word")
    return tag("header", tag("h1", badge, " ", tag("span", title)), *inside, class_=f"top {tone}")


def said(*pairs: tuple[str, str]) -> Html:
    """Return names and what they are, a line each; a pair without a value is left out."""
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value]
    return tag("dl", *rows) if rows else Html()


def section(title: str, *inside: str) -> Html:
    """Return a part of the answer under a headline; "" without content."""
    return tag("section", tag("h2", title), *inside) if any(inside) else Html()


def origin(bundle: Bundle, version: str) -> Html:
    """Return the last lines: where and when the answer comes from.

    Args:
        bundle: its records.
        version: of the program.
    """
    # A capture says when it was recorded.
    started = min((each.started for each in bundle.records if each.started), default="")
    live = f"a live cluster, asked at {started}" if started else "a live cluster"
    source = live if bundle.source == LIVE else f"the capture {bundle.source}"
    lines = [f"kubectl ebpfnet {version}, from {source}.", *captured(bundle)]
    return tag("footer", *(tag("p", line) for line in lines))
