"""Nothing that is not ours becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.render.html.elements import LONGEST, Html, joined, tag, text
from kubectl_ebpfnet.render.text.style import escape


class Read(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def in_lines(page: str) -> str:
    """Return a page as a golden file holds it: an element a line, its letters as they look."""
    letters = re.sub("&#([0-9]+);", lambda match: chr(int(match.group(1))), page)
    return letters.replace("><", ">\n<").replace(__version__, "VERSION")


@given(st.text(max_size=200))
def test_text_is_text_in_an_element_and_in_an_attribute(said):
    page = Read(tag("p", said, title=f".{said}"))
    assert page.tags == [("p", {"title": f".{escape(said)}"})]
    assert page.text == escape(said)


def test_only_html_is_not_escaped():
    assert joined("<b>", Html("<b>")) == "&lt;b&gt;<b>"
    assert tag("a", "x" + Html("<b>")) == "<a>x&lt;b&gt;</a>"  # a sum is text again


def test_names_and_attributes_without_a_value():
    assert tag("p", class_="a", aria_label='"', open="") == (
        '<p class="a" aria-label="&quot;" open></p>'
    )


def test_a_long_text_is_cut_and_says_so():
    shown = text("x" * (LONGEST + 7))
    assert shown == "x" * LONGEST + " … (7 more characters)"
