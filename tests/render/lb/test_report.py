"""probe-lb in every format; golden files show what it says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.probe import SCHEMA, AttemptOutcome, ProbeRequest
from kubectl_ebpfnet.render.lb.report import FORMATS, render, render_all
from kubectl_ebpfnet.render.text.view import View
from tests.render.lb import sample_reports as sample
from tests.render.path.sample_paths import HOSTILE

FOLDER = Path(__file__).parents[1] / "golden"
ANSWERS = {
    "as-asked": sample.as_asked,
    "contradicted": sample.contradicted,
    "planned": sample.planned,
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format(golden, answer, name):
    text = render(ANSWERS[answer](), sample.bundle(), name, View())
    golden(FOLDER / f"probe-{answer}.{name}", text)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_terminal_of_80_columns(golden, answer):
    text = render(ANSWERS[answer](), sample.bundle(), "table", View(80))
    golden(FOLDER / f"probe-{answer}.table.80", text)
    # The headline is one line however long; what follows keeps within the terminal.
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_evidence(golden):
    view = View(80, evidence=True)
    text = render(sample.contradicted(), sample.bundle(), "table", view)
    golden(FOLDER / "probe-contradicted.table.evidence", text)


def test_colour(golden):
    text = render(sample.contradicted(), sample.bundle(), "table", View(80, color=True))
    golden(FOLDER / "probe-contradicted.table.colour", text.replace("\x1b", "<ESC>"))
    plain = render(sample.contradicted(), sample.bundle(), "table", View(80))
    assert re.sub("\x1b\\[[0-9;]*m", "", text) == plain


@pytest.mark.parametrize("answer", ANSWERS)
def test_wide_lines_are_never_wrapped(answer):
    report = ANSWERS[answer]()
    text = render(report, sample.bundle(), "wide", View(40))
    assert text == render(report, sample.bundle(), "wide", View(0))


def test_one_line_a_node_when_not_a_terminal():
    lines = render(sample.contradicted(), sample.bundle(), "table", View()).splitlines()
    for row in sample.contradicted().rows:
        assert sum(line.startswith(f"{row.node} ") for line in lines) == 1


@pytest.mark.parametrize(
    ("outcome", "detail", "shown"),
    [
        (AttemptOutcome.TIMEOUT, "", "timeout"),
        (AttemptOutcome.REFUSED, "", "refused"),
        (AttemptOutcome.UNREACHABLE, "no ARP", "unreachable"),
        (AttemptOutcome.ICMP, "port unreachable", "ICMP port unreachable"),
        (AttemptOutcome.ICMP, "", "ICMP"),
        (AttemptOutcome.ERROR, "broken", "error"),
        (AttemptOutcome.NOT_TRIED, "", "not tried"),
    ],
)
def test_what_was_got(outcome, detail, shown):
    report = sample.as_asked()
    row = replace(report.rows[1], outcome=outcome, detail=detail)
    text = render(replace(report, rows=(row,)), sample.bundle(), "table", View())
    assert re.search(rf"^n2 +0/1 +no +{shown} +- +503 \(0\) +ok$", text, re.MULTILINE)


def test_a_report_without_nodes_says_so():
    report = replace(sample.as_asked(), rows=(), internal=())
    assert "no node is known" in render(report, sample.bundle(), "table", View(80))


def test_the_json_document():
    document = json.loads(render(sample.contradicted(), sample.bundle(), "json", View()))
    assert document["schema"] == SCHEMA
    assert document["service"] == {"namespace": "default", "name": "web-lb"}
    assert document["verdict"] == "contradicted"
    item = document["items"][0]
    assert item["target"]["protocol"] == "TCP"
    assert item["expected"]["answers"] == "yes"
    assert item["attempts"][0]["outcome"] == "timeout"
    assert "target" not in item["attempts"][0]
    assert item["evidence"][0]["record"] == 1
    assert [record["number"] for record in document["records"]] == [1, 2]
    assert document["findings"][0]["evidence"][0]["lines"] == [3]
    text = render(sample.contradicted(), sample.bundle(), "yaml", View())
    assert yaml.safe_load(text) == document


def test_a_protocol_that_was_asked_for_is_named():
    report = replace(sample.planned(), request=ProbeRequest("d", "web-lb", protocol=17))
    document = json.loads(render(report, sample.bundle(), "json", View()))
    assert document["request"]["protocol"] == "UDP"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("view", [View(80, evidence=True), View(0, evidence=True)])
def test_nothing_that_a_terminal_obeys(name, view):
    text = render(sample.hostile(), sample.bundle(), name, view)
    assert not {c for c in text if not c.isprintable() and c != "\n"}
    assert "\u202e" not in text


def test_colour_stays_ours():
    text = render(sample.hostile(), sample.bundle(), "table", View(80, color=True))
    assert set(re.findall("\x1b\\[[0-9;]*m", text)) == {"\x1b[1;31m", "\x1b[0m"}


def test_json_still_says_the_same():
    document = json.loads(render(sample.hostile(), sample.bundle(), "json", View()))
    assert document["items"][0]["node"] == HOSTILE
    assert document["items"][0]["attempts"][0]["body"] == HOSTILE


def test_a_part_of_the_document():
    one, bundle = sample.contradicted(), sample.bundle()
    whole = json.loads(render(one, bundle, "json", View()))
    said = render(one, bundle, "jsonpath={.verdict} {.items[*].node}", View())
    assert said == " ".join([whole["verdict"], *(row["node"] for row in whole["items"])])
    both = render_all([(one, bundle), (one, bundle)], "jsonpath={.items[*].verdict}")
    assert both == f"{whole['verdict']} {whole['verdict']}"


def test_an_unknown_format_is_refused_in_kubectls_words():
    with pytest.raises(UsageError, match='output format "tree"'):
        render(sample.planned(), sample.bundle(), "tree", View())


def test_the_documentation_names_every_key():
    said = (Path(__file__).parents[3] / "docs/json.md").read_text()
    section = said.partition("## `probe-lb`\n")[2].partition("\n## ")[0]
    document = json.loads(render(sample.contradicted(), sample.bundle(), "json", View()))
    item = document["items"][0]
    parts = (
        document, document["service"], document["request"], item, item["target"],
        item["endpoints"], item["expected"], item["attempts"][0], item["health"],
    )  # fmt: skip
    missing = [key for part in parts for key in part if f"`{key}`" not in section]
    assert missing == []
