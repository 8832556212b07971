"""`probe-lb -o html`: what the page says. How it looks: tests/render/html/test_in_chromium.py."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.cli.probe_arguments import render_reports
from kubectl_ebpfnet.model.probe import AttemptOutcome
from kubectl_ebpfnet.render.lb.page import page
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from tests.render.html.test_elements import Read, in_lines
from tests.render.lb import sample_reports as sample
from tests.render.lb.test_report import ANSWERS, FOLDER
from tests.render.path.sample_paths import HOSTILE


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer(golden, answer):
    body = page([(ANSWERS[answer](), sample.bundle())]).partition("<main>")[2]
    golden(
        FOLDER / f"probe-{answer}.html.body",
        in_lines(body),
    )


def test_the_matrix_says_what_the_table_says():
    rows = re.findall(r"<tr class.*?</tr>", page([(sample.contradicted(), sample.bundle())]))
    first = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", rows[0])
    assert [Read(cell).text for cell in first] == [
        "n1", "1/1", "yes, preserved", "timeout", "-", "503 (1), not 200", "MISMATCH",
    ]  # fmt: skip
    assert [re.match(r'<tr class="(\w+)"', row).group(1) for row in rows[:4]] == [
        "bad", "good", "open", "bad",
    ]  # fmt: skip


def test_who_asked_whom():
    report = sample.as_asked()
    one = report.rows[0]
    backend = ip_address("10.244.1.5")
    answered = replace(one.attempts[0], backend=backend)
    lost = replace(answered, outcome=AttemptOutcome.TIMEOUT, backend=None, source_seen=None)
    one = replace(one, attempts=(answered, answered, lost))
    text = page([(replace(report, rows=(one,), internal=()), sample.bundle())])
    chains = [
        [Read(part).text for part in re.findall(r"<(?:span|b) .*?</(?:span|b)>", chain)]
        for chain in re.findall(
            r'<span class="chain">(.*?)(?=<span class="chain">|</summary>)', text
        )
    ]
    sent = "192.0.2.12:40000 → 198.51.100.7:80"
    assert chains == [
        ["n2", sent, "n1", "from 192.0.2.12:40000", "backend 10.244.1.5", "answered × 2"],
        ["n2", sent, "n1", "timeout"],
    ]


def test_a_plan_has_sent_nothing():
    text = page([(sample.planned(), sample.bundle())])
    assert text.count("not sent") == 2
    assert '<span class="end">yes, preserved</span>' in text
    assert 'class="box ask unknown"' in text


def test_a_hostile_name_is_text():
    read = Read(page([(sample.hostile(), sample.bundle())]))
    assert not {"script", "img", "a"} & {name for name, _ in read.tags}
    assert read.text.count(escape(HOSTILE)) > 8


def test_answers_for_both_policies_stand_on_one_page():
    both = [(sample.as_asked(), sample.bundle()), (sample.contradicted(), sample.bundle())]
    text = render_reports(both, "html", View())
    assert text.count("<!DOCTYPE") == 1
    assert text.index("BEHAVES") < text.index("DOES NOT BEHAVE")
