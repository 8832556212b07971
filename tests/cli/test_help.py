"""The help texts are docs/cli/*.txt: `pytest --update-golden` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.cli.app import COMMANDS
from tests.cli.console import run, through_kubectl

DOCS = Path(__file__).parents[2] / "docs" / "cli"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(golden, name):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    golden(DOCS / f"{name}.txt", done.stdout)
    assert f"Usage:\n  kubectl ebpfnet {name}" in done.stdout
    assert done.stdout.index("Examples:") < done.stdout.index("Options:")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_of_the_program(golden):
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    golden(DOCS / "ebpfnet.txt", done.stdout)
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
