"""Over all recorded clusters of the tests: no error stands beside a verdict that lets the packet
through. Edits of these clusters hold the same (tests/explain/path/changed.py, `agree`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.console import run
from tests.explain.path.changed import agree
from tests.same import questions
from tests.same.clusters import read

TESTS = Path(__file__).parents[1]
CAPTURES = [
    *sorted(path.parent for path in TESTS.glob("scenarios/**/bundle.json")),
    *sorted(TESTS.glob("features/*/*.zip")),
    *sorted(TESTS.glob("faults/*/*.zip")),
]
ASKED = 4
"""Questions of each, from its pods to pods, Services, nodes and the world."""


@pytest.mark.parametrize("place", CAPTURES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_error_beside_a_verdict_that_lets_the_packet_through(place: Path) -> None:
    cluster = read(place, str(place.relative_to(TESTS)), [])
    for words in questions.taken(cluster, ASKED):
        done = run(*words, "--from", str(place), "-o", "json", "--color", "never")
        if done.stdout:
            path = json.loads(done.stdout)
            errors = [f["title"] for f in path["findings"] if f["severity"] == "error"]
            agree(path["verdict"], errors)
