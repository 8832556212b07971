"""Names of a cluster are untrusted: no format lets one be obeyed or hide a line."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.render.path.formats import FORMATS, render
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import columns
from tests.render.path import sample_paths as sample


def said(name: str, view: View | None = None) -> str:
    return render(sample.hostile(), sample.hostile_bundle(), name, view or View(80, False, True))


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_that_a_terminal_obeys(name):
    text = said(name)
    harmful = {c for c in text if not c.isprintable() and c != "\n"}
    assert not harmful
    assert "\u202e" not in text


def test_a_newline_in_a_name_makes_no_line():
    lines = said("table", View()).splitlines()
    assert sum(line.startswith(" ✗ ") for line in lines) == 2  # the hop, and that of the answer
    assert not any(line.startswith("b") for line in lines)


def test_colour_stays_ours():
    text = said("table", View(80, color=True))
    assert set(re.findall("\x1b\\[[0-9;]*m", text)) == {"\x1b[1;33m", "\x1b[1;31m", "\x1b[0m"}


def test_json_and_yaml_still_say_the_same():
    document = json.loads(said("json"))
    assert document["hops"][0]["summary"] == sample.HOSTILE
    assert document["records"][0]["argv"][1] == sample.HOSTILE
    assert yaml.safe_load(said("yaml")) == document


def test_yaml_of_a_harmless_answer_is_readable():
    assert "summary: connect() is rewritten to" in render(
        sample.dropped(), sample.bundle(), "yaml", View()
    )


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain → text", "plain → text"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x7f\x80\x9b", r"\x7f\x80\x9b"),
        ("\u202e\u2066\u2069\u200e", r"\u202e\u2066\u2069\u200e"),
        ("\u200b\u200d\u2060\ufeff\u00ad", r"\u200b\u200d\u2060\ufeff\xad"),
        ("\u2028\u2029\u00a0", r"\u2028\u2029\xa0"),
        ("\u3164\ufe0f\U000e0041\U000e0100", r"\u3164\ufe0f\U000e0041\U000e0100"),
        ("\udcff", r"\udcff"),
        ("é漢😀", "é漢😀"),
    ],
)
def test_escape(raw, shown):
    assert escape(raw) == shown


@given(st.text())
def test_escape_leaves_only_what_shows(text):
    shown = escape(text)
    assert shown.isprintable()
    assert escape(shown) == shown


# --- the graph syntaxes ---------------------------------------------------------------------------

MERMAID_LINES = [
    r"---",
    r'title: "([A-Za-z0-9 .,:/()→_+-]|\\U[0-9a-f]{8})*"',
    r"config:",
    r"  flowchart:",
    r"    wrappingWidth: \d+",
    r"flowchart TB",
    r"  +direction TB",
    r'  +subgraph (hop|back)_frame\d+(_part\d+)?\["LABEL"\]',
    r'  +(hop|back)\d+\["LABEL"\]',
    r"  +end",
    r'  (hop|back)\d+ --> (\|"LABEL"\| )?(hop|back)\d+',
    r"  classDef (seen|derived|unknown|dropped) [a-z0-9#:, -]+",
    r"  class ((hop|back)\d+,?)+ (seen|derived|unknown|dropped)",
]
MERMAID = re.compile(
    "|".join(MERMAID_LINES).replace("LABEL", r"([A-Za-z0-9 .,:/()→_+-]|#[0-9]+;|<br>)*")
)


@pytest.mark.parametrize("answer", [sample.delivered, sample.dropped, sample.empty, sample.hostile])
def test_mermaid_is_only_our_syntax(answer):
    for line in render(answer(), sample.bundle(), "mermaid", View()).splitlines():
        assert MERMAID.fullmatch(line), line


def test_mermaid_labels_decode_to_what_was_said():
    text = said("mermaid")
    label = re.search(r'hop1\["(.*)"\]', text).group(1)
    decoded = re.sub(r"#(\d+);", lambda m: chr(int(m.group(1))), label.replace("<br>", ""))
    assert decoded.startswith("✗ 1 route" + escape(sample.HOSTILE).replace(" ", "")[:30])
    title = yaml.safe_load(text.split("---")[1])["title"]
    assert escape(sample.HOSTILE) in title


DOT_QUOTED = re.compile(r'"(?:[^"\\\n]|\\\\|\\"|\\l)*"')


@pytest.mark.parametrize("answer", [sample.delivered, sample.dropped, sample.empty, sample.hostile])
def test_dot_is_only_our_syntax(answer):
    text = render(answer(), sample.bundle(), "dot", View())
    rest = DOT_QUOTED.sub("S", text)
    assert re.fullmatch(r"[A-Za-z0-9_ \n=;,{}\[\]>-]*", rest), rest
    assert rest.count("{") == rest.count("}") == 1 + text.count("subgraph cluster_")


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize("answer", [sample.delivered, sample.dropped, sample.empty, sample.hostile])
def test_graphviz_reads_it(answer):
    text = render(answer(), sample.bundle(), "dot", View())
    done = subprocess.run(
        ["dot", "-Tdot_json"], input=text.encode(), capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    labels = [o.get("label") for o in json.loads(done.stdout).get("objects", [])]
    if answer is sample.hostile:
        # Graphviz keeps a label's escString as written: decode it as its drawing would.
        shown = [re.sub(r"\\(.)", r"\1", label) for label in labels[:2]]
        assert shown == [f"{kind} {escape(sample.HOSTILE)}" for kind in ("node", "pod")]
    assert len([o for o in labels if o]) >= len(answer().hops)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_draws_no_entity_of_a_name():
    path = sample.dropped()
    name = "a &#x202e;&lt; &amp; b"
    path = replace(path, hops=(replace(path.hops[0], summary=name, short=""), *path.hops[1:]))
    text = render(path, sample.bundle(), "dot", View())
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=text.encode(), capture_output=True, check=True, timeout=60
    ).stdout.decode()
    assert "\u202e" not in drawn
    shown = [html.unescape(each) for each in re.findall("<text[^>]*>([^<]*)</text>", drawn)]
    assert any(name in each.replace("\xa0", " ") for each in shown)


@given(st.text())
def test_no_name_escapes_its_label(name):
    path = sample.dropped()
    path = replace(path, hops=(replace(path.hops[0], summary=name, where=name), *path.hops[1:]))
    for line in render(path, sample.bundle(), "mermaid", View()).splitlines():
        assert MERMAID.fullmatch(line), line
    rest = DOT_QUOTED.sub("S", render(path, sample.bundle(), "dot", View()))
    assert re.fullmatch(r"[A-Za-z0-9_ \n=;,{}\[\]>-]*", rest)


@given(st.text(), st.sampled_from(["table", "wide"]), st.sampled_from([0, 40, 80, 140]))
def test_no_name_breaks_a_table(name, format_name, width):
    path = sample.delivered()
    hop = replace(path.hops[1], summary=name, where=name, reason=name)
    path = replace(path, hops=(path.hops[0], hop, *path.hops[2:]))
    text = render(path, sample.bundle(), format_name, View(width))
    assert all(line.isprintable() for line in text.splitlines())
    if width:
        assert all(columns(line) <= width for line in text.splitlines())
    else:
        plain = render(sample.delivered(), sample.bundle(), format_name, View())
        assert text.count("\n") == plain.count("\n")
