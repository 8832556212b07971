"""Pages of `-o html` in a real browser: opened, clicked, printed, dark, narrow, by keyboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.render.lb.page import page as probe_page
from kubectl_ebpfnet.render.path import graph, phrases
from kubectl_ebpfnet.render.path.page import page
from kubectl_ebpfnet.render.text.style import escape
from tests.render.html import chromium, mermaid
from tests.render.html.test_elements import Read
from tests.render.lb import sample_reports as lb_sample
from tests.render.path import sample_paths as sample

pytestmark = pytest.mark.skipif(chromium.MISSING, reason="chromium is not installed")


def long_way(hops: int = 200) -> Path:
    """A path of many hops, over ten nodes with long names."""
    path = sample.delivered()
    way = []
    for number in range(hops):
        node = f"ip-10-0-17-{number // 20}.eu-central-1.compute.internal"
        way.append(replace(path.hops[number % 4], number=number + 1, node=node))
    return replace(path, hops=tuple(way))


def many_entries() -> Path:
    """A client outside that may enter by as many nodes as are walked from."""
    path = sample.outside()
    lost, through = path.outside.entries
    entries = (lost, *(replace(through, node=f"kind-worker{n}") for n in range(2, 9)))
    closed = tuple(replace(path.outside.closed[0], node=f"closed-{n}") for n in range(8))
    entrance = replace(path.outside, entries=entries, closed=closed, more_closed=180)
    return replace(path, outside=entrance)


PAGES = {
    "delivered": lambda: page(sample.delivered(), sample.bundle()),
    "dropped": lambda: page(sample.dropped(), sample.bundle()),
    "outside": lambda: page(many_entries(), sample.bundle()),
    "empty": lambda: page(sample.empty(), sample.bundle()),
    "hostile": lambda: page(sample.hostile(), sample.hostile_bundle()),
    "probe": lambda: probe_page([(lb_sample.contradicted(), lb_sample.bundle())]),
    "probe-planned": lambda: probe_page([(lb_sample.planned(), lb_sample.bundle())]),
    "probe-hostile": lambda: probe_page([(lb_sample.hostile(), lb_sample.bundle())]),
    "long": lambda: page(long_way(), sample.bundle()),
}
WIDER = """
[...document.querySelectorAll("body *")].filter(e => !e.classList.contains("spoken"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
    || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && getComputedStyle(e).overflowX == "visible" && getComputedStyle(e).display != "inline")
  .map(e => e.outerHTML.slice(0, 200))
"""
"""Elements that reach beyond the window, or whose content does beyond themselves."""
FAINT = """
(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = c => { const l = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 :
    ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim()) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([texts.currentNode.data.slice(0, 40),
      getComputedStyle(e).color, (a + 0.05) / (b + 0.05)]);
  }
  return faint;
})()
"""
"""Texts with less contrast than WCAG 2.2 1.4.3 asks for: 4.5 to 1."""


@pytest.fixture(scope="module")
def running() -> Iterator[chromium.Chromium]:
    browser = chromium.Chromium()
    yield browser
    browser.close()


@pytest.fixture
def browser(running) -> chromium.Chromium:
    """The one browser, as it is for a reader who chose nothing."""
    running.show()
    return running


@pytest.mark.parametrize("name", PAGES)
def test_it_opens_without_a_word_and_asks_for_nothing(browser, name):
    address = browser.open(PAGES[name]())
    assert browser.complaints() == []
    assert browser.requests() == [address]
    assert browser.evaluate("document.compatMode") == "CSS1Compat"
    # Elements that may not stand in each other would be moved, or made twice.
    names = browser.evaluate("[...document.querySelectorAll('*')].map(e => e.localName)")
    assert names == [element for element, _ in Read(PAGES[name]()).tags]
    assert browser.evaluate("getComputedStyle(document.querySelector('.top')).borderLeftWidth") == (
        "6px"
    )  # the style sheet holds


def test_markup_of_others_would_have_no_effect(browser):
    """Also that complaints and requests would be seen."""
    bad = '<img src="http://127.0.0.1:9/x"><script>document.title = "run"</script>'
    bad += '<p style="color:red">'
    browser.open(PAGES["empty"]().replace("<main>", f"<main>{bad}"))
    told = " ".join(browser.complaints())
    for directive in ("img-src", "script-src", "style-src"):
        assert directive in told
    assert browser.evaluate("document.title") != "run"


def test_a_hostile_name_is_text(browser):
    browser.open(PAGES["hostile"]())
    assert browser.evaluate("document.querySelectorAll('main script, a, img, form').length") == 0
    shown = browser.evaluate("document.querySelector('h1').innerText")
    assert escape(sample.HOSTILE) in shown.replace("\n", " ")
    assert escape(sample.HOSTILE) in browser.evaluate("document.title")


@pytest.mark.parametrize("name", PAGES)
def test_every_text_is_within_the_window_and_has_contrast(browser, name):
    browser.open(PAGES[name]())
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for width, dark in ((1000, False), (1000, True), (400, True), (600, False)):
        browser.show(width, dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(WIDER) == [], width
        assert browser.evaluate(FAINT) == [], dark
        paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(15, 19, 24)" if dark else "rgb(255, 255, 255)")


def visible(browser: chromium.Chromium, what: str) -> bool:
    """Tell whether a text of evidence is to be seen."""
    shown = "e.checkVisibility({contentVisibilityAuto: true})"
    tall = "e.getBoundingClientRect().height > 9"
    found = f"e => e.textContent.includes('{what}') && {shown} && {tall}"
    return bool(browser.evaluate(f"[...document.querySelectorAll('pre')].some({found})"))


def test_a_click_opens_the_evidence(browser):
    browser.open(PAGES["delivered"]())
    assert not visible(browser, "default via 10.244.1.41")
    box = "document.querySelector('.box summary').getBoundingClientRect()"
    x, y = browser.evaluate(f"[{box}.x + 200, {box}.y + 10]")
    browser.click(x, y)
    assert visible(browser, "default via 10.244.1.41")
    browser.click(x, y)
    assert not visible(browser, "default via 10.244.1.41")


def test_the_drop_is_open_and_red(browser):
    browser.open(PAGES["dropped"]())
    assert visible(browser, "Direction")
    color = "getComputedStyle(document.querySelector('.box.dropped')).borderTopColor"
    assert browser.evaluate(color) == "rgb(179, 21, 29)"


def test_the_keyboard_alone_reaches_and_opens_everything(browser):
    browser.open(PAGES["outside"]())
    everything = browser.evaluate("document.querySelectorAll('summary').length")
    seen = []
    for _ in range(everything):
        browser.press("Tab")
        seen.append(
            browser.evaluate(
                "[...document.querySelectorAll('summary')].indexOf(document.activeElement)"
            )
        )
        outline = browser.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        if not browser.evaluate("document.activeElement.parentElement.open"):
            browser.press("Enter")
        assert browser.evaluate("document.activeElement.parentElement.open")
    assert everything > 3
    assert seen == list(range(everything))


def test_print_shows_the_evidence(browser):
    browser.show(dark=True, media="print")
    browser.open(PAGES["delivered"]())
    assert visible(browser, "default via 10.244.1.41")
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.evaluate(FAINT) == []


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_paper_holds_the_evidence(browser):
    browser.open(PAGES["delivered"]())
    done = subprocess.run(
        ["pdftotext", "-layout", "-", "-"], input=browser.pdf(), capture_output=True, check=True
    )
    assert "default via 10.244.1.41 dev eth0 mtu 1450" in done.stdout.decode()


def test_two_hundred_hops_are_all_there(browser):
    browser.open(PAGES["long"]())
    assert (
        browser.evaluate("document.querySelectorAll('.way')[0].querySelectorAll('.box').length")
        == 200
    )
    assert browser.evaluate("document.querySelectorAll('.way')[0].children.length") > 10
    assert len(PAGES["long"]()) < 400_000
    # What Mermaid takes by default (its maxTextSize), and GitHub too.
    assert len(graph.mermaid(long_way())) < 50_000


# --- -o mermaid, drawn by Mermaid itself ----------------------------------------------------------


DRAWN = {
    "delivered": sample.delivered,
    "dropped": sample.dropped,
    "outside": sample.outside,
    "long": lambda: long_way(60),
}


@pytest.fixture(scope="module")
def drawing(running) -> Callable[[Path], str]:
    """Draws a path and gives the text of the drawing."""
    code = mermaid.FILE.read_text(encoding="utf-8")
    running.open(f"<!DOCTYPE html><meta charset=utf-8><main></main><script>{code}</script>")
    running.evaluate("mermaid.initialize({startOnLoad: false})")

    def draw(path: Path) -> str:
        text = json.dumps(graph.mermaid(path))
        drawn = f"mermaid.render('drawn', {text}).then(({{svg}}) => main.innerHTML = svg)"
        running.evaluate(f"main = document.querySelector('main'); {drawn}")
        return str(running.evaluate("main.innerText"))

    return draw


@pytest.mark.skipif(not mermaid.FILE.exists(), reason="mermaid was not fetched: npm is missing")
@pytest.mark.parametrize("answer", DRAWN)
def test_mermaid_draws_every_hop_and_frame(browser, drawing, answer):
    path = DRAWN[answer]()
    shown = drawing(path)
    back = path.answer.hops if path.answer is not None else ()
    assert browser.evaluate("main.querySelectorAll('.node').length") == len(path.hops) + len(back)
    assert f"node {path.hops[-2].node}" in shown
    tops = browser.evaluate(
        "[...main.querySelectorAll('.node[id*=hop]')].sort((a, b) => a.id.match(/hop(\\d+)/)[1] - "
        "b.id.match(/hop(\\d+)/)[1]).map(e => e.getBoundingClientRect().top)"
    )
    assert len(tops) == len(path.hops)
    assert tops == sorted(set(tops))  # one below the other
    assert browser.evaluate("main.querySelectorAll('.node.dropped').length") == sum(
        hop.drops for hop in path.hops
    )
    assert f"\n{phrases.ends(path.hops[0].packet.flow).split(' ')[0]}\n→ " in shown


@pytest.mark.skipif(not mermaid.FILE.exists(), reason="mermaid was not fetched: npm is missing")
def test_mermaid_shows_a_hostile_name_as_text(browser, drawing):
    shown = drawing(sample.hostile())
    assert escape(sample.HOSTILE).split("`")[0].replace(" ", "") in re.sub(r"\s", "", shown)
    assert browser.evaluate("main.querySelectorAll('script').length") == 0
