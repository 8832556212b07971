"""`-o html`: what the page says. How it looks and works: tests/render/html/test_in_chromium.py."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.path import Contradiction, Direction, Drop, Evidence, State
from kubectl_ebpfnet.render.path.page import page
from kubectl_ebpfnet.render.text.style import escape
from tests.render.html.test_elements import Read, in_lines
from tests.render.path import sample_paths as sample
from tests.render.path.test_golden import ANSWERS, FOLDER

WITHOUT_EFFECT = {
    "a", "b", "body", "code", "dd", "details", "div", "dl", "dt", "footer", "h1", "h2", "h3", "h4",
    "head", "header", "html", "li", "main", "meta", "p", "pre", "section", "span", "strong",
    "style", "summary", "title", "ul",
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer(golden, answer):
    body = page(ANSWERS[answer](), sample.bundle()).partition("<main>")[2]
    golden(
        FOLDER / f"{answer}.html.body",
        in_lines(body),
    )


@pytest.mark.parametrize("answer", [*ANSWERS.values(), sample.hostile])
def test_it_loads_and_runs_nothing(answer):
    text = page(answer(), sample.hostile_bundle())
    assert text.isascii()
    read = Read(text)
    assert {name for name, _ in read.tags} <= WITHOUT_EFFECT
    attributes = {name for _, found in read.tags for name in found}
    assert attributes <= {
        "aria-hidden", "charset", "class", "content", "http-equiv", "lang", "name", "open",
    }  # fmt: skip
    policy = next(a["content"] for _, a in read.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy


def test_a_hostile_name_is_there_to_be_read():
    read = Read(page(sample.hostile(), sample.hostile_bundle()))
    assert read.text.count(escape(sample.HOSTILE)) > 20
    assert all(c.isprintable() or c == "\n" for c in read.text)


def test_the_tuple_stands_where_it_changes():
    text = page(sample.delivered(), sample.bundle())
    way = text.partition("The way")[2].partition("The way back")[0]
    edges = [Read(each).text for each in re.findall(r'<div class="edge tuple">.*?</div>', way)]
    assert edges == [
        "10.244.1.160 → 1.1.1.1:80",
        "10.244.1.160:36768 → 1.1.1.1:80",
        "172.30.0.12:36768 → 1.1.1.1:80",
    ]
    assert "<b>172.30.0.12:36768</b> &#8594; <span>1.1.1.1:80</span>" in text


def test_a_drop_says_why_in_its_box_and_shows_its_proof():
    path = replace(sample.dropped(), cause="no rule of cnp/x allows it")
    text = page(path, sample.bundle())
    box = re.search(r'<details class="box dropped" open>.*?</details>', text, re.DOTALL)
    assert "no rule of cnp/x allows it" in box.group()
    assert "&quot;Direction&quot;:&quot;egress&quot;" in box.group()


def test_a_drop_of_the_answer_stands_in_the_way_back_alone():
    path = sample.delivered()
    lost = replace(path.answer.hops[0], drops=True)
    path = replace(
        path,
        cause="a rule of netfilter",
        drop=Drop("derived", 1, "kind-worker", "a rule", direction=Direction.ANSWER),
        answer=replace(path.answer, hops=(lost,)),
    )
    there, _, back = page(path, sample.bundle()).partition("The way back")
    assert "box dropped" not in there
    assert "a rule of netfilter" in re.search(r'class="box dropped".*?</summary>', back).group()


def test_evidence_against_the_way_stands_on_top():
    against = Contradiction("a monitor saw it dropped", (Evidence(1, (1,)),))
    path = replace(sample.delivered(), contradictions=(against,))
    top = page(path, sample.bundle()).partition("</header>")[0]
    assert "a monitor saw it dropped" in top
    assert "default via 10.244.1.41" in top


def test_each_node_that_may_be_entered_has_its_own_way():
    text = page(sample.outside(), sample.bundle())
    rows = re.findall(r'<(?:p|details) class="entry (\w+)">', text)
    assert rows == ["bad", "good"]
    assert "and 3 more, not asked" in text
    assert "kind-control-plane" in text


def test_much_evidence_is_cut_and_says_so():
    path = sample.delivered()
    excerpt = tuple(f"line {n}" for n in range(1000))
    hop = replace(path.hops[0], state=State.OBSERVED, evidence=(Evidence(1, (), excerpt),))
    text = page(replace(path, hops=(hop,), answer=None), sample.bundle())
    assert "801 more lines" in text
    assert text.count("line 9") < 20


def test_the_page_says_when_a_live_cluster_was_asked():
    live = replace(sample.bundle(), source="live")
    text = page(sample.delivered(), live)
    assert "from a live cluster, asked at 2026-11-21T05:00:00Z." in text
    assert "from the capture sample." in page(sample.delivered(), sample.bundle())
