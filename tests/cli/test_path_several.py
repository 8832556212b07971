"""`path -l` and `--all-pods`: a line for each pod, those that fare otherwise in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import path_several
from kubectl_ebpfnet.cli.path_questions import SeveralPods
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.render.text.view import View
from tests.cli.console import run
from tests.explain.path.changed import SCENARIOS, VXLAN, ask

BUNDLE = open_bundle(File(SCENARIOS) / VXLAN)
GOOD = ask(BUNDLE, "client", "1.1.1.1:80", "tcp")
BAD = replace(
    GOOD, verdict=Verdict.DROPPED, cause="no rule lets POD pass", because=("at node2",), fix=None
)


class Fake:
    """Answers in place of a cluster: the paths by the pods' names."""

    def __init__(self, paths: dict[str, Path | None]) -> None:
        self.paths = paths

    def pods(self, wanted: SeveralPods) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.paths]

    def look(self, request_of: Any) -> tuple[Path, Any]:
        path = self.paths[request_of("default")]
        if path is None:
            raise NotFound("pod", "gone", "default")
        return path, BUNDLE


def answered(paths: dict[str, Path | None], output: str = "table") -> int:
    def name_of(pod: str, namespace: str) -> Any:
        return pod

    wanted = SeveralPods("Deployment", "x")
    return path_several.answer(
        Fake(paths),  # type: ignore[arg-type]
        wanted, name_of, output, View(width=80), Progress(),
    )  # fmt: skip


def named(path: Path, pod: str) -> Path:
    return replace(path, cause=path.cause.replace("POD", pod))


def test_pods_that_fare_alike_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert answered({"a": GOOD, "b": GOOD}) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 pods of deployment/x: 2 delivered"
    assert [line.split()[:2] for line in said[2:] if line[:1].strip()] == [
        ["DELIVERED", "pod/a"],
        ["DELIVERED", "pod/b"],
    ]


def test_the_differing_ones_in_full_and_alike_ones_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"a": GOOD, "b": named(BAD, "b"), "c": GOOD, "d": named(BAD, "d"), "e": GOOD}
    assert answered(dict(paths)) == 3
    said = capsys.readouterr().out
    assert said.startswith("5 pods of deployment/x: 3 delivered, 2 dropped\n")
    assert said.count("\nCause ") == 1
    assert "So fare d:\nDROPPED " in said


def test_a_reason_that_is_another_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert answered({"a": BAD, "b": replace(BAD, cause="a route leads nowhere")}) == 3
    assert capsys.readouterr().out.count("\nCause ") == 2


def test_a_pod_that_went_away_is_said_and_is_not_a_good_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert answered({"a": GOOD, "gone": None}) == 4
    found = capsys.readouterr()
    assert found.err == 'pod/gone: pod "gone" not found in namespace default\n'
    assert found.out.startswith("1 pod of deployment/x: 1 delivered\n")


def test_where_no_pod_can_be_asked_there_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound):
        answered({"a": None, "b": None})
    assert capsys.readouterr().out == ""


def test_names_are_untrusted(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\nb\u202e"
    answered({hostile: BAD, "b": BAD, hostile + "c": BAD, "d": GOOD})
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert "\nSo fare b, a\\x1b[2J\\nb\\u202ec:\n" in said


def test_a_name_that_is_part_of_a_reason_by_chance_joins_no_reasons(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert answered({"1": replace(BAD, cause="no rule for port 12"),
                     "2": replace(BAD, cause="no rule for port 22")}) == 3  # fmt: skip
    assert capsys.readouterr().out.count("\nCause ") == 2


def test_many_pods_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    assert answered({f"p{number}": GOOD for number in range(path_several.MOST + 3)}) == 4
    assert "\n3 more, which were not asked\n" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    answered({"a": GOOD, "b": BAD}, "json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "ebpfnet.dev/paths/v1"
    assert [item["verdict"] for item in document["items"]] == ["delivered", "dropped"]
    assert document["missing"] == []


def test_json_names_the_pods_without_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    answered({"a": GOOD, "gone": None}, "json")
    document = json.loads(capsys.readouterr().out)
    assert document["missing"] == ['pod/gone: pod "gone" not found in namespace default']


def test_of_a_capture() -> None:
    done = run("path", "-l", "app=web", "1.1.1.1:80", "--from", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 pod of app=web: 1 leaves\n")
    whole = run("path", "deploy/web", "1.1.1.1:80", "--all-pods", "--from", "demo")
    assert whole.stdout.startswith("1 pod of deployment/web: 1 leaves\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-l", "app=web", "pod/client", "1.1.1.1"), "name cannot be provided when a selector"),
        (("pod/client", "1.1.1.1", "--all-pods"), "only a workload has several pods"),
        (("-l", "app=web", "1.1.1.1", "-w"), "-w watches one pod"),
        (("-l", "app=web", "1.1.1.1", "-o", "html"), "-o html shows the answer of one pod"),
        (("-l", "app=web"), "DESTINATION is missing"),
        (("pod/client",), "DESTINATION is missing"),
        ((), "SOURCE is missing"),
        (("-l", "a=b=c", "1.1.1.1"), "a=b=c"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together(words: tuple[str, ...], said: str) -> None:
    done = run("path", *words, "--from", "demo")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
