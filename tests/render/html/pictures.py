"""`make pictures`: the picture of `-o html` in the docs, of the demo that ships.

python -m tests.render.html.pictures
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from kubectl_ebpfnet.cli.app import main
from tests.render.html.chromium import Chromium

DOCS = Path(__file__).parents[3] / "docs"
QUESTION = ("path", "pod/client", "1.1.1.1:7777", "--from", "demo:dropped", "-o", "html")
WIDTH = 720


def page() -> str:
    """Return the page that is shown."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(list(QUESTION))
    return out.getvalue()


def draw() -> None:
    """Write the picture."""
    browser = Chromium()
    try:
        browser.show(WIDTH)
        browser.open(page())
        browser.evaluate("document.querySelector('.dropped').open = false")
        end = "document.querySelector('.way').getBoundingClientRect().bottom"
        (DOCS / "path.png").write_bytes(browser.picture(browser.evaluate(end) + 16))
    finally:
        browser.close()


if __name__ == "__main__":
    draw()
