"""Captures of real clusters with Cilium's features, healthy and broken: each question is answered
right, by the agent's capture and by the node pods'.

A folder is a situation: its captures (agent.zip, pod.zip) and `questions.txt`, the questions with
what is right for each:

    pod/client 172.31.7.11:30945          the words of `path`
        verdict reachable                 one of these words is the verdict
        says  refused.*node2              a regular expression that reason, cause and fix hold
        hop   load-balancing node1 .*→    one that a hop holds: its kind, node, place and summary
        drops policy node1 .*denies       one that the hop holds which drops it
        finds error|warning|info …        one that a finding of this severity holds
        not   served by X                 one that nothing above holds
        object Service default/web        what a person would edit

No finding is an error unless a line `finds error` expects it. A line with `agent:` or `pod:` before
it holds for that capture alone. `delivered` and `reachable` differ by how old the newest answer is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cli.console import run
from tests.explain.path.changed import agree

HERE = Path(__file__).parent
_EXPECTED = ("verdict", "says", "hop", "drops", "finds", "not", "object")


@dataclass
class Question:
    """The words of `path`, and what is right: (way or "", kind, expression)."""

    situation: str
    words: str
    right: list[tuple[str, str, str]] = field(default_factory=list)

    def expected(self, way: str, kind: str) -> list[str]:
        """Return the expressions of a kind that hold for a capture."""
        return [text for at, what, text in self.right if at in ("", way) and what == kind]


def read(situation: str) -> list[Question]:
    """Read a situation's questions."""
    found: list[Question] = []
    for line in (HERE / situation / "questions.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            found.append(Question(situation, line.strip()))
            continue
        way, _, rest = line.strip().partition(": ") if _for_a_way(line) else ("", "", line.strip())
        kind, _, text = rest.partition(" ")
        assert kind in _EXPECTED, line
        found[-1].right.append((way, kind, text.strip()))
    return found


def _for_a_way(line: str) -> bool:
    return line.strip().startswith(("agent: ", "pod: "))


SITUATIONS = sorted(path.parent.name for path in HERE.glob("*/questions.txt"))
ASKED = [
    (question, way)
    for situation in SITUATIONS
    for question in read(situation)
    for way in ("agent", "pod")
]


@cache
def answer(situation: str, way: str, words: str) -> dict[str, Any]:
    """Return the document of a question, or of a refusal: its text as the reason."""
    capture = str(HERE / situation / f"{way}.zip")
    done = run("path", *words.split(), "--from", capture, "-o", "json", "--color", "never")
    if done.stdout:
        return dict(json.loads(done.stdout))
    return {"verdict": "refused", "reason": done.stderr, "cause": "", "fix": None, "hops": [],
            "findings": [], "drop": None}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "way"), ASKED, ids=[f"{q.situation}-{way}-{q.words}" for q, way in ASKED]
)
def test_the_answer_is_right(question: Question, way: str) -> None:
    path = answer(question.situation, way, question.words)
    fix = path["fix"] or {"text": "", "command": ""}
    said = " | ".join((path["reason"], path["cause"], fix["text"], fix["command"]))
    hops = [f"{h['kind']} {h['node']} {h['where']}: {h['summary']}" for h in path["hops"]]
    found = [f"{f['severity']} {f['title']}: {f['detail']}" for f in path["findings"]]
    shown = "\n".join((f"{path['verdict']}: {said}", *hops, *found))
    (verdicts,) = question.expected(way, "verdict")
    assert path["verdict"] in verdicts.split(), shown
    for text in question.expected(way, "says"):
        assert re.search(text, said), f"{text}\n{shown}"
    for text in question.expected(way, "hop"):
        assert any(re.search(text, hop) for hop in hops), f"{text}\n{shown}"
    dropping = [text for text, hop in zip(hops, path["hops"], strict=True) if hop["drops"]]
    for text in question.expected(way, "drops"):
        assert any(re.search(text, hop) for hop in dropping), f"{text}\n{shown}"
    awaited = question.expected(way, "finds")
    for text in awaited:
        assert any(re.search(text, each) for each in found), f"{text}\n{shown}"
    for text in question.expected(way, "not"):
        assert not re.search(text, shown), f"not {text}\n{shown}"
    for text in question.expected(way, "object"):
        assert (path["drop"] or {}).get("object") == text, f"{path['drop']}\n{shown}"
    agree(path["verdict"], [f["title"] for f in path["findings"] if f["severity"] == "error"])
    if not any(text.startswith("error") for text in awaited):
        assert not [each for each in found if each.startswith("error")], shown
