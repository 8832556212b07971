"""Every format of small answers, as golden files: read them to see what the tool says."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    # The headline is one line however long; what follows keeps within the terminal.
    assert max(map(len, text.splitlines()[1:]), default=0) <= width


@pytest.mark.parametrize("answer", ["delivered", "dropped"])
@pytest.mark.parametrize("name", ["table", "wide", "tree"])
def test_evidence(golden, answer, name):
    view = View(80, color=False, evidence=True)
    golden(
        FOLDER / f"{answer}.{name}.evidence", render(ANSWERS[answer](), sample.bundle(), name, view)
    )


@pytest.mark.parametrize("name", ["table", "tree"])
def test_tree_and_table_in_colour(golden, name):
    text = render(sample.delivered(), sample.bundle(), name, View(80, color=True))
    golden(FOLDER / f"delivered.{name}.colour", text.replace("\x1b", "<ESC>"))


def test_tree_keeps_within_the_terminal():
    text = render(sample.delivered(), sample.bundle(), "tree", View(60))
    assert max(map(len, text.splitlines()[1:])) <= 60


def test_one_line_a_hop_when_not_a_terminal():
    path = sample.delivered()
    lines = render(path, sample.bundle(), "table", View()).splitlines()
    assert [line.split()[0] for line in lines[3 : 3 + len(path.hops)]] == list("12345")
    assert sum("unknown" in line and "tc is not in this image" in line for line in lines) == 1


def test_an_unknown_format_is_a_programming_error():
    with pytest.raises(ValueError, match="no format 'xml'"):
        render(sample.empty(), sample.bundle(), "xml", View())
