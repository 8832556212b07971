"""The README's example is what the program prints, and its commands do what they can do here."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.capture.write import write_bundle
from tests.cli.console import environment, run
from tests.conftest import Golden

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COLUMNS = "96"
RECORDED = str(ROOT / "tests" / "scenarios" / "vxlan-kpr")
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FILE = re.compile(r"`([\w./-]+(?:/|\.(?:py|md|sh|toml)))`")
ROOMS = ("kubectl_ebpfnet", "tests", "bench", "docs", "image")
NOT_HERE = ("model/events.py", "node/trace/", "records/", "dist/")
"""Homes of what issues bring; the folder in a capture; what is built here."""
COMMANDS = re.findall(r"^    kubectl ebpfnet ([^#|>\n]+)", README.read_text(), re.M)
MAKE = re.compile(r"(?:^    |[`\"(]|^step \S+ )make (?:-s )?([a-z-]+)", re.M)
EXAMPLE = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<said>.*?)```\n", re.S)


def in_a_terminal(argv: list[str]) -> str:
    """What a command prints on a terminal of COLUMNS columns, without colours."""
    ours, theirs = pty.openpty()
    env = environment(COLUMNS=COLUMNS, NO_COLOR="1")
    program = shutil.which(argv[0], path=env["PATH"])
    assert program, f"{argv[0]} is not on PATH"
    with subprocess.Popen(
        [program, *argv[1:]], stdout=theirs, stderr=subprocess.DEVNULL, env=env
    ) as process:
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


def test_the_example_is_what_is_printed(golden: Golden, pytestconfig: pytest.Config) -> None:
    text = README.read_text()
    examples = list(EXAMPLE.finditer(text))
    assert examples
    for example in examples:
        said = in_a_terminal(shlex.split(example["command"]))
        said = said.partition("\n\n✓ seen")[0]
        shown = "\n".join(line.rstrip() for line in said.rstrip().split("\n")) + "\n"
        text = text.replace(example["said"], shown)
    golden(README, text)


def test_every_command_of_the_readme_has_help() -> None:
    commands = set(re.findall(r"kubectl ebpfnet ([a-z-]+)", README.read_text()))
    assert commands >= {"path", "capture", "completion"}
    for command in commands:
        done = run(command, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=str.strip)
def test_every_command_of_the_readme_does_what_it_can(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs to its end; one that needs a cluster is understood and misses the kubeconfig, and
    answers about pod client from a recorded cluster."""
    monkeypatch.chdir(tmp_path)
    argv = shlex.split(words)
    if "--from" in argv:
        write_bundle(tmp_path / argv[-1], open_demo("demo").records)
    done = run(*argv, env={"HOME": str(tmp_path)})
    if "--from" in argv or argv[0] == "completion":
        assert (done.returncode, "internal error" in done.stderr) == (0, False), done.stderr
        return
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nonexistent/kubeconfig" in done.stderr
    if "pod/client" in argv and argv[0] in ("path", "programs", "flows"):
        for_once = [word for word in argv if word != "-w"]
        assert run(*for_once, "--from", RECORDED).returncode == 0


def test_every_make_target_of_the_documents_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in (*DOCUMENTS, ROOT / ".ci" / "run"):
        for target in MAKE.findall(document.read_text()):
            assert target in targets, f"{document.name}: make {target}"


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_file_that_the_documents_name_is_there() -> None:
    paths = [f"/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*")]
    for document in DOCUMENTS:
        for name in FILE.findall(document.read_text()):
            if name not in NOT_HERE and not re.search("[A-Z]{4}", name):
                there = any(path.endswith(f"/{name.rstrip('/')}") for path in paths)
                assert there or (ROOT / name).exists(), f"{document.name}: {name}"
