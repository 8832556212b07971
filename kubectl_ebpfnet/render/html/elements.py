"""HTML elements that cannot hold markup of others: text is escaped unless it is `Html`.

A template library would bring its own language for six functions' worth of page; escaping by
construction is what matters, and `html.escape` does it (html.spec.whatwg.org, "Serialising HTML
fragments": `&`, `<`, `>` and quotes are all that text or a quoted attribute has to escape).
"""

from __future__ import annotations

import html

from kubectl_ebpfnet.render.text.style import escape

LONGEST = 4000
"""Characters of one text that a page shows: a line of JSON may be as long as its record."""


class Html(str):
    """Markup of our own; any other string is text."""

    __slots__ = ()


def text(value: str) -> Html:
    """Return untrusted text: control characters visible, markup inert, length bounded."""
    if len(value) > LONGEST:
        value = f"{value[:LONGEST]} … ({len(value) - LONGEST} more characters)"
    return Html(html.escape(escape(value)))


def joined(*inside: str) -> Html:
    """Return several pieces as one; those that are not Html are escaped."""
    return Html("".join(piece if isinstance(piece, Html) else text(piece) for piece in inside))


def tag(name: str, *inside: str, **attributes: str) -> Html:
    """Return an element.

    Args:
        name: of the element, ours.
        inside: its content; what is not Html is escaped.
        attributes: `class_` and `aria_label` are `class` and `aria-label`; values are escaped, and
            "" is an attribute without a value.
    """
    words = [name]
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        words.append(f'{word}="{text(value)}"' if value else word)
    return Html(f"<{' '.join(words)}>{joined(*inside)}</{name}>")


def spoken(words: str) -> Html:
    """Return words for a screen reader alone: what a mark or a colour shows to others."""
    return tag("span", words, class_="spoken")
