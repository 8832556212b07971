"""Every test that docs/security.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def functions_of(file: Path) -> set[str]:
    body = ast.parse(file.read_text()).body if file.is_file() else []
    return {each.name for each in body if isinstance(each, ast.FunctionDef)}


def test_the_tests_that_are_named_exist() -> None:
    text = DOCUMENT.read_text()
    named = NAMED.findall(text)
    assert len(named) == text.count("::test_") > 40
    assert [f"{f}::{name}" for f, name in named if name not in functions_of(ROOT / f)] == []


def test_every_attack_has_a_test() -> None:
    """Rows of tables of attacks, and sections without a table."""
    _, _, attacks = DOCUMENT.read_text().partition("## Who may attack")
    attacks, _, _ = attacks.partition("## What is not stopped")
    rows = [line for line in attacks.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| Attack |")]
    assert len(rows) > 15
    assert [row for row in rows if not NAMED.search(row)] == []
    assert [each for each in attacks.split("\n### ")[1:] if not NAMED.search(each)] == []
