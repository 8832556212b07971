"""The safety net itself: what differs is seen, and every run asks the same."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

from tests.same import questions
from tests.same.answer import answer
from tests.same.clusters import Cluster, clusters
from tests.same.differences import ABSENT, Difference, differences, kind

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 2}, [("$.a", "1", "2")]),
        ({"a": 1}, {"a": True}, [("$.a", "1", "true")]),
        ({"a": 1}, {"a": 1.0}, [("$.a", "1", "1.0")]),
        ({"a": None}, {}, [("$.a", "null", ABSENT)]),
        ({"hops": [{"at": "x"}]}, {"hops": [{"at": "y"}]}, [("$.hops[0].at", '"x"', '"y"')]),
        ([1, 2, 3], [1, 9, 2, 3], [("$[1]", ABSENT, "9")]),
        ([1, 2, 3], [1, 3], [("$[1]", "2", ABSENT)]),
        ([1, 2], [2, 1], [("$[0]", ABSENT, "2"), ("$[1]", "2", ABSENT)]),
        ({"a": []}, {"a": {}}, [("$.a", "[]", "{}")]),
    ],
)
def test_what_differs_in_a_document_is_found_with_its_place(
    old: object, new: object, expected: list[tuple[str, str, str]]
) -> None:
    found = differences((0, json.dumps(old), ""), (0, json.dumps(new), ""))
    assert found == [Difference(*one) for one in expected]


def test_the_same_document_written_otherwise_differs() -> None:
    assert differences((0, '{"a": 1, "b": 2}', ""), (0, '{"b": 2, "a": 1}', ""))
    assert differences((0, '{"a":1}', ""), (0, '{"a": 1}', ""))


def test_exit_code_and_lines_of_both_streams() -> None:
    found = differences((0, "a\nb\nc\n", "said\n"), (3, "a\nB\nc", ""))
    assert found == [
        Difference("exit code", "0", "3"),
        Difference("stdout", "b\\n", "B\\n"),
        Difference("stdout", "c\\n", "c"),
        Difference("stderr", "said\\n", ABSENT),
    ]
    assert differences((0, "a\n", ""), (0, "a\n", "")) == []


def test_one_change_is_one_kind_wherever_it_is() -> None:
    at_two = Difference("$.hops[2].does", '"it is at a, by day"', '"it is at a, by night"')
    at_three = Difference("$.hops[3].does", '"it is at bb, by day"', '"it is at bb, by night"')
    other = Difference("$.hops[3].does", '"it is at bb, by day"', '"it is at bb, by noon"')
    assert kind(at_two) == kind(at_three) != kind(other)
    assert kind(Difference("stdout", "a  b", "a   b")) == kind(Difference("stdout", "a  b", "a b"))


def test_an_answer_has_exit_code_and_both_streams() -> None:
    def main(words: list[str]) -> int:
        print("→", *words)
        print("hint", file=sys.stderr)
        return 3

    def leaves(_: list[str]) -> int:
        raise SystemExit("left")

    assert answer(main, ["path", "a"]) == (3, "→ path a\n", "hint\n")
    assert answer(leaves, []) == (1, "", "")


def test_every_scenario_is_asked_by_every_command_and_each_time_the_same() -> None:
    def asked() -> list[tuple[str, list[list[str]]]]:
        turn = itertools.count()
        return [(one.name, questions.about(one, turn)) for one in clusters(CHECKOUT, None)]

    found = asked()
    assert found == asked()
    assert {name for name, _ in found} == {
        *(str(index.parent.relative_to(CHECKOUT)) for index in _scenarios()),
    }
    for name, words in found:
        assert {one[0] for one in words} == {"path", "flows", "programs", "doctor"}, name
        assert 30 < len(words) < 100, name


def test_what_a_capture_was_made_for_is_asked(tmp_path: Path) -> None:
    case = tmp_path / "cases" / "01-a"
    (case / "bundle").mkdir(parents=True)
    (case / "check.sh").write_text('"$1" path pod/a 1.1.1.1:80 --from "$here/bundle" -o json\n')
    pod = {"metadata": {"name": "a", "namespace": "b"}, "spec": {}}
    record = {"where": {"kind": "api"}, "argv": ["get", "pods"], "stdout": json.dumps(pod)}
    (case / "bundle" / "bundle.json").write_text("{}")
    (case / "bundle" / "records.jsonl").write_text(json.dumps(record))
    found = next(one for one in clusters(CHECKOUT, tmp_path) if one.name == "cases/01-a/bundle")
    assert found == Cluster(
        "cases/01-a/bundle", str(case / "bundle"), [["path", "pod/a", "1.1.1.1:80"]], pods=[pod]
    )


def _scenarios() -> list[Path]:
    return list((CHECKOUT / "tests" / "scenarios").glob("*/bundle.json"))
