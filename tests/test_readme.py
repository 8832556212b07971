"""The README's example is what the program prints, and its commands exist."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Golden

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COLUMNS = "96"
EXAMPLE = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<said>.*?)```\n", re.S)


def in_a_terminal(argv: list[str]) -> str:
    """What a command prints on a terminal of COLUMNS columns, without colours."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": COLUMNS, "NO_COLOR": "1", "PATH": path()}
    with subprocess.Popen(argv, stdout=theirs, stderr=subprocess.DEVNULL, env=env) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            said += piece
    os.close(ours)
    assert process.returncode == 0
    return said.decode().replace("\r\n", "\n")


def path() -> str:
    """PATH with this environment's kubectl and plugin in front."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_the_example_is_what_is_printed(golden: Golden, pytestconfig: pytest.Config) -> None:
    text = README.read_text()
    examples = list(EXAMPLE.finditer(text))
    assert examples
    for example in examples:
        said = in_a_terminal(shlex.split(example["command"]))
        said = said.partition("\nCAPTURE\n")[0]
        shown = "\n".join(line.rstrip() for line in said.rstrip().split("\n")) + "\n"
        text = text.replace(example["said"], shown)
    golden(README, text)


def test_every_command_of_the_readme_has_help() -> None:
    commands = set(re.findall(r"kubectl ebpfnet ([a-z-]+)", README.read_text()))
    assert commands >= {"path", "capture", "completion"}
    for command in commands:
        done = subprocess.run(
            ["kubectl", "ebpfnet", command, "--help"],
            env={**os.environ, "PATH": path()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
