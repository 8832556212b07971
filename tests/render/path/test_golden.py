"""Every format of small answers, as golden files: read them to see what the tool says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.path.formats import FORMATS, render
from kubectl_ebpfnet.render.text.view import View
from tests.render.path import sample_paths as sample

FOLDER = Path(__file__).parents[1] / "golden"
ANSWERS = {
    "delivered": sample.delivered,
    "dropped": sample.dropped,
    "empty": sample.empty,
    "outside": sample.outside,
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "html"])  # test_page.py
def test_every_format(golden, answer, name):
    golden(
        FOLDER / f"{answer}.{name}",
        render(ANSWERS[answer](), sample.bundle(), name, View()),
    )


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("width", [40, 80, 140])
def test_tables_for_terminals(golden, answer, width):
    text = render(ANSWERS[answer](), sample.bundle(), "table", View(width))
    golden(FOLDER / f"{answer}.table.{width}", text)
    assert max(map(len, text.splitlines()), default=0) <= width


@pytest.mark.parametrize("answer", ["delivered", "dropped"])
@pytest.mark.parametrize("name", ["table", "wide"])
def test_evidence(golden, answer, name):
    view = View(80, color=False, evidence=True)
    golden(
        FOLDER / f"{answer}.{name}.evidence", render(ANSWERS[answer](), sample.bundle(), name, view)
    )


@pytest.mark.parametrize("answer", ["delivered", "outside"])
def test_a_table_in_colour(golden, answer):
    text = render(ANSWERS[answer](), sample.bundle(), "table", View(80, color=True))
    golden(FOLDER / f"{answer}.table.colour", text.replace("\x1b", "<ESC>"))


@pytest.mark.parametrize("name", ["table", "wide"])
def test_one_line_a_hop_without_a_width(name):
    path = sample.delivered()
    lines = render(path, sample.bundle(), name, View()).splitlines()
    marks = ("✓", "~", "?", "✗")
    hops = [line for line in lines if line.split()[:1] and any(f" {m} " in line[:7] for m in marks)]
    assert len(hops) == len(path.hops) + len(path.answer.hops)
    assert sum(" ? bpf " in line and "tc is not in this image" in line for line in lines) == 1


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", ["table", "wide"])
def test_a_terminal_that_has_ascii_alone(answer, name):
    view = View(80, ascii=True, evidence=True)
    assert render(ANSWERS[answer](), sample.bundle(), name, view).isascii()


def test_an_unknown_format_is_refused_in_kubectls_words():
    with pytest.raises(UsageError, match='output format "xml"'):
        render(sample.empty(), sample.bundle(), "xml", View())
