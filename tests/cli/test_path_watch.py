"""`path -w`: the answer, then a line for each change, until an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import path_watch
from kubectl_ebpfnet.cli.terminal import Progress, WatchEnded
from kubectl_ebpfnet.errors import ApiUnreachable, NotFound, UsageError
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.render.text.view import View
from tests.cli.console import run
from tests.explain.path.changed import SCENARIOS, VXLAN, ask

BUNDLE = open_bundle(SCENARIOS / VXLAN)
FIRST = ask(BUNDLE, "client", "1.1.1.1:80", "tcp")
LOST = replace(FIRST, verdict=Verdict.DROPPED, because=("at node2",), cause="nobody lets it pass")
GONE = NotFound("pod", "client", "default")


def watched(looks: list[Path | Exception], output: str = "table") -> None:
    """Look at these, then be interrupted."""
    waiting: Iterator[Path | Exception] = iter(looks)

    def look() -> tuple[Path, object]:
        found = next(waiting, None)
        if found is None:
            raise KeyboardInterrupt
        if isinstance(found, Exception):
            raise found
        return found, BUNDLE

    with pytest.raises(WatchEnded):
        path_watch.watch(look, output, View(width=80), Progress(), seconds=0)  # type: ignore[arg-type]


Said = Callable[[], "pytest.CaptureResult[str]"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return capsys.readouterr


def test_an_answer_that_stays_is_printed_once(said: Said) -> None:
    watched([FIRST, FIRST, FIRST])
    assert said().out.count("DELIVERED") == 1


def test_each_change_has_its_time(said: Said) -> None:
    watched([FIRST, LOST, LOST, FIRST])
    lines = said().out.splitlines()
    changes = [line for line in lines if line[:2].isdigit() and line[2] == ":"]
    assert [line[10:].split()[0] for line in changes] == ["verdict", "cause", "verdict", "cause"]
    assert "DELIVERED → DROPPED: at node2" in changes[0]


def test_a_look_that_fails_is_a_line_and_ends_nothing(said: Said) -> None:
    watched([FIRST, GONE, GONE, LOST])
    found = said()
    assert [line[10:] for line in found.err.splitlines()] == [
        'cannot look: pod "client" not found in namespace default',
        "can look again",
    ]
    assert "DELIVERED → DROPPED" in found.out


def test_a_look_that_fails_again_after_another_time_is_no_other_line(said: Said) -> None:
    late = [ApiUnreachable(f"no answer within {seconds}s") for seconds in ("29.98", "30.01")]
    watched([FIRST, *late, FIRST])
    assert said().err.count("cannot look") == 1


def test_the_first_look_has_to_succeed() -> None:
    def look() -> tuple[Path, object]:
        raise GONE

    with pytest.raises(NotFound):
        path_watch.watch(look, "table", View(), Progress(), seconds=0)  # type: ignore[arg-type]


def test_documents_come_whole(said: Said) -> None:
    watched([FIRST, FIRST, LOST], "json")
    decoder, text, documents = json.JSONDecoder(), said().out, []
    while text:
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:].lstrip()
    assert [document["verdict"] for document in documents] == ["delivered", "dropped"]


@pytest.mark.parametrize("output", ["html", "dot", "jsonpath={.verdict}"])
def test_a_picture_is_of_one_answer(output: str) -> None:
    with pytest.raises(UsageError, match="shows one answer"):
        path_watch.check(output)


def test_a_capture_does_not_change() -> None:
    words = ("path", "pod/client", "1.1.1.1:80", "--from", "demo")
    assert run(*words, "-w").stdout == run(*words).stdout
