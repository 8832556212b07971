"""Help texts of commands. They stand on the pages of docs/commands: tests/docs compares them."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from kubectl_ebpfnet.cli.app import COMMANDS
from tests.cli.console import run, through_kubectl

EXPECTED = Path(__file__).parent / "expected"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage:\n  kubectl ebpfnet {name}" in done.stdout
    assert done.stdout.index("Examples:") < done.stdout.index("Options:")
    assert max(map(len, done.stdout.splitlines())) <= 80


def examples(name: str) -> list[list[str]]:
    """The words of a command's examples, without pipes and redirections."""
    module = importlib.import_module(f"kubectl_ebpfnet.cli.commands.{name.replace('-', '_')}")
    return [shlex.split(re.split(r" [|<>] ", line)[0]) for _, line in module.TEXT.examples]


# The recordings of the demo have no trace.
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"trace"}))
def test_the_first_example_of_a_command_that_reads_captures_runs(name):
    if "  --from FILE" not in run(name, "--help").stdout:
        return
    first = examples(name)[0]
    assert first[-2:] == ["--from", "demo"]
    done = run(*first)
    assert (done.returncode, "error:" in done.stderr) == (0, False)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_right_command_lines(name, tmp_path, monkeypatch):
    """Without a kubeconfig they end there, not before."""
    monkeypatch.chdir(tmp_path)
    for words in examples(name):
        done = run(*words, env={"HOME": str(tmp_path)})
        assert done.returncode != 2, (words, done.stderr)
        if done.returncode == 1:
            assert "no kubeconfig" in done.stderr or "no such capture: case.zip" in done.stderr


def test_help_of_the_program(golden):
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    golden(EXPECTED / "help.txt", done.stdout)
    assert [f"  {name} " in done.stdout for name in COMMANDS] == [True] * len(COMMANDS)


@pytest.mark.parametrize("words", [(), ("-h",), ("help",)])
def test_other_ways_to_ask_for_it(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (0, run("--help").stdout)


@pytest.mark.parametrize("words", [("path", "-h"), ("help", "path")])
def test_other_ways_to_ask_a_command(words):
    assert run(*words).stdout == run("path", "--help").stdout


def test_kubectl_shows_the_same_help():
    done = through_kubectl("path", "--help")
    assert (done.returncode, done.stdout) == (0, run("path", "--help").stdout)


def test_all_flags_of_kubectl_are_listed():
    done = run("options")
    for flag in ("--as-user-extra", "--certificate-authority", "-s, --server", "--proxy-url"):
        assert f"    {flag} " in done.stdout


def test_a_terminal_of_ascii_gets_help_and_hints_in_ascii():
    here = {"LC_ALL": "C"}
    help_text = run("path", "--help", env=here).stdout
    assert help_text.isascii()
    assert "jsonpath=...," in help_text
    hint = run("show-record", "x", "--from", "demo", env=here).stderr
    assert "hint: `path ... -o wide` and" in hint
    assert run("doctor", "--help", env=here).stdout.isascii()
    assert run("--help", env=here).stdout.isascii()
