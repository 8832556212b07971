"""`doctor` as a person calls it, on captures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.collect.ask.unasked import EXEC, unavailable_record
from kubectl_ebpfnet.model.evidence import agent_place
from tests.cli.console import on_a_terminal, run

GOLDEN = Path(__file__).parents[1] / "expected"
DEMO = ("doctor", "--from", "demo")


@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_forms(golden, form):
    done = run(*DEMO, "-o", form)
    assert (done.returncode, done.stderr) == (0, "")
    golden(GOLDEN / f"doctor.{form}.txt", done.stdout)


def test_within_80_columns():
    code, text = on_a_terminal(*DEMO, "--color", "never", columns=80)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80


def test_when_a_capture_was_made_is_told_once():
    capture = Path(__file__).parents[2] / "faults" / "v22-udp8472-iptables" / "pod.zip"
    assert run("doctor", "--from", str(capture)).stdout.count("recorded 2026-") == 1


def test_json_and_yaml_say_the_same():
    document = json.loads(run(*DEMO, "-o", "json").stdout)
    assert document["verdict"] == "partial"
    assert yaml.safe_load(run(*DEMO, "-o", "yaml").stdout) == document


def test_where_path_is_blind_the_exit_code_says_so(tmp_path):
    file = tmp_path / "blind.zip"
    write_bundle(file, [unavailable_record(agent_place("n1"), EXEC, "exec is denied")])
    done = run("doctor", "--from", str(file))
    assert done.returncode == 3
    assert done.stdout.startswith("BLIND  path would be blind on n1\n")
    assert "exec is denied" in done.stdout
    shown = run("doctor", "--from", str(file), "-v")
    assert "$ exec   (cilium-agent on n1, exec is denied)" in shown.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((*DEMO, "-o", "tree"), "allowed formats are: json,"),
        (("doctor", "pod/x"), "pod/x"),
        (("doctor", "--node-access", "ssh"), "no such mode"),
        (("doctor", "--node-access", "agent", "--keep"), "no node pod is deployed"),
    ],
)
def test_mistakes(words, complaint):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_no_cluster():
    done = run("doctor")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
