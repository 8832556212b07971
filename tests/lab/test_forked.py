"""A fork of the imported program is the program: its output, exit code and end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.console import environment, run
from tests.lab.cluster.tools import forked

PATH = ("path", "pod/client", "1.1.1.1:80", "--from", "demo")


@pytest.fixture(scope="module")
def program() -> Iterator[forked.Program]:
    with forked.program() as one:
        yield one


@pytest.mark.parametrize("words", [PATH, ("path", "pod/client"), ("version",)], ids=" ".join)
def test_it_is_what_main_says(program: forked.Program, words: tuple[str, ...]) -> None:
    done, same = program.run(*words, env=environment(), timeout=60), run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (
        same.returncode, same.stdout, same.stderr,
    )  # fmt: skip


def test_its_environment_is_what_is_given(program: forked.Program) -> None:
    blind = environment(KUBECONFIG="/nonexistent/e2e")
    done = program.run("path", "pod/client", "1.1.1.1:80", env=blind, timeout=60)
    assert done.returncode == 1
    assert "/nonexistent/e2e" in done.stderr


def test_one_that_takes_too_long_is_killed(program: forked.Program) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        program.run(*PATH, env=environment(), timeout=0)
    assert program.run("version", env=environment(), timeout=60).returncode == 0
