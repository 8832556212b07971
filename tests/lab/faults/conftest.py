"""Fixtures: everything is counted before a fault and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import Lab, wait_until
from tests.lab.faults.runs import FIGURES, count


@pytest.fixture(scope="session", autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    lines = [f"{took:5.1f} s  exit {code:3}  {name}: {said}" for name, took, code, said in FIGURES]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *lines, sep="\n")


@pytest.fixture
def nothing_left(our_lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A folder for a run's files. Afterwards everything is counted as before it."""
    folder = tmp_path / "run"
    folder.mkdir()
    before = count(our_lab, folder)
    yield folder
    (folder / "x.zip").unlink(missing_ok=True)  # a capture that was made before the end
    _gone(lambda: count(our_lab, folder).objects - before.objects, 60)
    after = count(our_lab, folder)
    assert not after.links - before.links
    assert not after.programs - before.programs
    _gone(lambda: count(our_lab, folder).processes - before.processes, 30)
    assert after.files == set()


def _gone(left: Callable[[], set[Any]], seconds: float) -> None:
    try:
        wait_until(lambda: not left(), seconds)
    except AssertionError:
        assert left() == set(), f"after {seconds} s"
