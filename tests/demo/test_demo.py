"""The demos hold what was recorded, and say what they are there to show."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.demo import DEMOS, FOLDER, open_demo
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record, agent_place, pod_place
from tests.cli.console import run
from tests.demo.__main__ import RECORDED, made

SHIPPED_BYTES = 250_000


def content(records: tuple[Record, ...] | list[Record]) -> list[object]:
    return [
        (r.place, r.argv, r.exit_code, r.stdout.read(), r.stderr, r.started, r.error)
        for r in records
    ]


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_is_what_was_recorded(name: str) -> None:
    records, note = made(DEMOS[name])
    demo = open_demo(name)
    assert content(demo.records) == content(records), "run: python -m tests.demo"
    assert (demo.note, demo.source) == (note, name)


def test_the_demos_are_small() -> None:
    files = sorted(FOLDER.iterdir())
    assert [file.stem for file in files] == sorted(DEMOS.values())
    assert sum(file.stat().st_size for file in files) < SHIPPED_BYTES


@pytest.mark.parametrize(
    ("name", "destination", "code", "verdict"),
    [
        ("demo", "1.1.1.1:80", 0, "delivered"),
        ("demo", "svc/web", 0, "delivered"),
        ("demo", "pod/web-7c469c57c9-8p62k", 0, "delivered"),
        ("demo:dropped", "1.1.1.1:7777", 3, "dropped"),
        ("demo:unknown", "1.1.1.1:7777", 4, "unknown"),
    ],
)
def test_what_a_demo_shows(name: str, destination: str, code: int, verdict: str) -> None:
    done = run("path", "pod/client", destination, "--from", name, "-o", "json")
    assert (done.returncode, done.stderr) == (code, "")
    answer = json.loads(done.stdout)
    assert answer["verdict"] == verdict
    nodes = {hop["node"] for hop in answer["hops"] if hop["kind"] == "tunnel"}
    if destination == "1.1.1.1:80":
        assert "it leaves the cluster as 172.31.7.12:52922" in answer["reason"]
    elif verdict == "delivered":
        assert nodes == {"node1", "node2"}
    elif verdict == "dropped":
        assert "by CiliumNetworkPolicy default/client-egress" in answer["reason"]
        assert "3 drops “Policy denied”" in answer["reason"]
    else:
        assert "--node-access none: nothing on the node was asked" in answer["reason"]
        assert "by the policies in the cluster it is denied" in answer["reason"]


@pytest.mark.parametrize(
    ("destination", "said"),
    [("1.1.1.1:80", "by the policies in the cluster it is allowed"), ("svc/web", "was asked")],
)
def test_the_policies_of_a_service_are_not_asked_for_its_address(
    destination: str, said: str
) -> None:
    done = run("path", "pod/client", destination, "--from", "demo:unknown", "-o", "json")
    reason = json.loads(done.stdout)["reason"]
    assert said in reason
    assert ("by the policies" in reason) == (destination == "1.1.1.1:80")


@pytest.mark.parametrize(
    ("words", "without_nodes"), [("flows pod/client", 4), ("programs pod/client", 4), ("doctor", 3)]
)
def test_every_command_reads_a_demo(words: str, without_nodes: int) -> None:
    codes = [run(*words.split(), "--from", name).returncode for name in DEMOS]
    assert codes == [0, 0, without_nodes]


def test_an_unknown_demo_names_those_that_there_are() -> None:
    done = run("path", "pod/client", "1.1.1.1", "--from", "demo:absent")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such demo: demo:absent" in done.stderr
    for name in DEMOS:
        assert name in done.stderr


def test_the_listeners_are_what_awk_prints(tmp_path: Path) -> None:
    """The question's own awk, of the recorded files in a folder of these names."""
    client = RECORDED / "dropped" / "pod-web-7c469c57c9-8p62k.txt"
    heads, parts = [], client.read_text().splitlines(keepends=True)
    heads = [number for number, line in enumerate(parts) if line.split()[:1] == ["sl"]]
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text("".join(parts[heads[0] : heads[1]]))
    (tmp_path / "proc/net/tcp6").write_text("".join(parts[heads[1] : heads[2]]))
    question = q.TCP_LISTENERS.forms[0]
    argv = [word.removeprefix("/") for word in question]
    printed = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True, text=True)
    record = open_demo("demo:dropped").record(
        pod_place("default", "web-7c469c57c9-8p62k"), question
    )
    assert record is not None
    said = [f"/{line}" for line in printed.stdout.splitlines()]
    assert record.stdout.read().decode().splitlines() == said


def test_hubble_s_record_is_the_whole_log() -> None:
    record = open_demo("demo:dropped").record(agent_place("node2"), q.HUBBLE.forms[0])
    assert record is not None
    assert record.stdout.read() == (RECORDED / "dropped" / "node2-hubble.jsonl").read_bytes()
