"""What README and docs show is what the program prints; their command lines are right, and their
links lead somewhere. `python -m tests.docs`, or `pytest --update-golden`, writes what is shown."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.cli.app import COMMANDS
from tests.cli.console import KUBECTL, run, run_process
from tests.conftest import Golden
from tests.docs.pages import (
    DOCUMENTS,
    README,
    ROOT,
    command_lines,
    has_examples,
    kubectl_lines,
    renewed,
    shell_blocks,
)

RECORDED = str(ROOT / "tests" / "scenarios" / "vxlan-kpr")
FILE = re.compile(r"`([\w./-]+(?:/|\.(?:py|md|sh|toml)))`")
ROOMS = ("kubectl_ebpfnet", "tests", "bench", "docs", "image", "release")
NOT_HERE = ("model/events.py", "node/trace/", "records/", "dist/")
"""Homes of what issues bring; the folder in a capture; what is built here."""
MAKE = re.compile(r"(?:^    |^|[`\"(]|run: |^step \S+ )make (?:-s )?([a-z-]+)(?=[ `\")\n;#])", re.M)
KUBECTL_LINES = sorted({line for page in DOCUMENTS for line in kubectl_lines(page)})
COMMAND_LINES = sorted({line for page in DOCUMENTS for line in command_lines(page)})


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", list(filter(has_examples, DOCUMENTS)), ids=name)
def test_what_a_page_shows_is_what_is_printed(page: Path, golden: Golden) -> None:
    golden(page, renewed(page))


def test_readme_is_two_screens_and_has_an_example() -> None:
    assert has_examples(README)
    assert len(README.read_text().splitlines()) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_page_with_its_help(command: str) -> None:
    page = ROOT / "docs" / "commands" / f"{command}.md"
    assert f"\n$ kubectl ebpfnet {command} --help\n" in page.read_text()
    assert f"commands/{command}.md" in (ROOT / "mkdocs.yml").read_text()


def test_what_a_page_says_stands_in_it() -> None:
    """GitHub shows pages too, and includes nothing."""
    assert [name(page) for page in DOCUMENTS if "--8<--" in page.read_text()] == []


def test_every_page_is_in_the_site() -> None:
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    named = set(re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert pages == named


def test_command_lines_are_found() -> None:
    assert len(COMMAND_LINES) > 50
    assert {words.split()[2] for words in COMMAND_LINES} >= {"path", "capture", "netkat"}


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_a_command_line_does_what_it_can(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs to its end; one that needs a cluster is understood and misses the kubeconfig, and
    answers about pod client from a recorded cluster."""
    argv = shlex.split(words)[2:]
    assert not any("tests/" in word for word in argv), "an example of a page is printed"
    monkeypatch.chdir(tmp_path)
    if argv[-2:] == ["--from", "-"]:
        argv[-1] = "case.zip"
    if argv[-1] == "case.zip":
        write_bundle(tmp_path / "case.zip", open_demo("demo").records)
    done = run(*argv, env={"HOME": str(tmp_path)})
    assert done.returncode != 2, done.stderr
    assert "internal error" not in done.stderr
    if done.returncode == 1:
        assert "/nonexistent/kubeconfig" in done.stderr
        if "pod/client" in argv and argv[0] in ("path", "programs", "flows"):
            for_once = [word for word in argv if word != "-w"]
            recorded = run(*for_once, "--from", RECORDED)
            assert recorded.returncode in (0, 3, 4) or " not found in " in recorded.stderr


@pytest.mark.parametrize("words", KUBECTL_LINES)
def test_kubectl_understands_its_command_line(words: str) -> None:
    """It comes as far as the server, at whose address nobody listens."""
    nowhere = ("--server=http://127.0.0.1:1", "--request-timeout=1s")
    done = run_process(*nowhere, *shlex.split(words)[1:], program=(KUBECTL,))
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr


@pytest.mark.parametrize("page", list(filter(shell_blocks, DOCUMENTS)), ids=name)
def test_what_a_page_gives_a_shell_is_what_a_shell_takes(page: Path) -> None:
    text = "\n".join(shell_blocks(page))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_make_target_of_the_documents_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in (*DOCUMENTS, ROOT / ".ci" / "run", ROOT / ".github/workflows/docs.yml"):
        for target in MAKE.findall(document.read_text()):
            assert target in targets, f"{document.name}: make {target}"


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """Of other sites the form alone: there may be no network."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if ":" in target:
                there = urlsplit(target)
                assert there.scheme == "https", f"{document.name}: {target}"
                assert "." in there.netloc, f"{document.name}: {target}"
            elif path := target.partition("#")[0]:
                assert (document.parent / path).exists(), f"{document.name}: {target}"


def test_every_file_that_the_documents_name_is_there() -> None:
    paths = [f"/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*")]
    for document in DOCUMENTS:
        for name in FILE.findall(document.read_text()):
            if name not in NOT_HERE and not re.search("[A-Z]{4}", name):
                there = any(path.endswith(f"/{name.rstrip('/')}") for path in paths)
                assert there or (ROOT / name).exists(), f"{document.name}: {name}"
