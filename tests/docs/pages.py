"""The pages that users read: their examples with what the program prints, and their command lines.

An example is a fence `console` that begins with `$ kubectl ebpfnet …`, or with the same and
`| head -N`; below stands what the program prints for it in a checkout, COLUMNS wide.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.cli.console import run

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
COLUMNS = "96"
LEGEND = "\n\n✓ seen"
"""What ends the hops: the legend and the capture's note, which an example leaves out."""
_EXAMPLE = re.compile(
    r"```console\n\$ (?P<command>[^\n]+?)(?: \| head -(?P<lines>\d+))?\n(?P<said>.*?)```\n", re.S
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_BLOCK = re.compile(r"^    (?:\$ )?(kubectl ebpfnet [^\n]+)", re.M)
_INLINE = re.compile(r"`(kubectl ebpfnet [\w-]+\s[^`]+)`")
_END = re.compile(r"\s(?:[|>#]|&&|;|<)\s?|  +\S")
_LEFT_OPEN = re.compile(r"…|(?<![\w.-])(?!LB)[A-Z]{1,9}(?![\w.])|\[|=(?:[a-z]+\|)")
"""A word in capitals, or what a form leaves open, which a reader replaces."""


def has_examples(page: Path) -> bool:
    """Whether a page shows what the program prints."""
    return _EXAMPLE.search(page.read_text()) is not None


def renewed(page: Path) -> str:
    """Return a page's text, with what its examples print now."""
    with contextlib.chdir(ROOT):
        return _EXAMPLE.sub(_renewed, page.read_text())


def _renewed(example: re.Match[str]) -> str:
    command, lines = example["command"], example["lines"]
    words = shlex.split(command)
    assert words[:2] == ["kubectl", "ebpfnet"], command
    done = run(*words[2:], env={"COLUMNS": COLUMNS})
    assert done.returncode in (0, 3, 4), f"{command}: {done.stderr}"
    said = done.stdout.partition(LEGEND)[0].rstrip().split("\n")
    shown = [line.rstrip() for line in said][: int(lines) if lines else None]
    cut = f" | head -{lines}" if lines else ""
    return "\n".join((f"```console\n$ {command}{cut}", *shown, "```\n"))


def command_lines(page: Path) -> Iterator[str]:
    """Yield the program's command lines of a page, without pipes, redirections and remarks, and
    without those that leave a word open."""
    text = page.read_text()
    blocks = [found for kind, found in _FENCE.findall(text) if kind != "console"]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    for line in (*lines, *_BLOCK.findall(text), *_INLINE.findall(text)):
        if not line.startswith("kubectl ebpfnet "):
            continue
        words = _END.split(" ".join(line.split("\n")), maxsplit=1)[0].strip()
        if not _LEFT_OPEN.search(words):
            yield words


def shell_blocks(page: Path) -> list[str]:
    """Return what a page gives a shell: its fences `sh`."""
    return [found for kind, found in _FENCE.findall(page.read_text()) if kind == "sh"]


def kubectl_lines(page: Path) -> Iterator[str]:
    """Yield the command lines of kubectl itself that a page gives a shell."""
    for line in "\n".join(shell_blocks(page)).splitlines():
        if line.startswith("kubectl ") and line.split()[1] not in ("ebpfnet", "krew"):
            yield _END.split(line, maxsplit=1)[0].strip()
