"""What the three demos look like: at 80, 120 and 200 columns, in colour, in ASCII, in a pipe, with
proof, and wide.

`pytest --update-golden` writes the files; read them as a person on a terminal would.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.console import on_a_terminal, run
from tests.conftest import Golden

FOLDER = Path(__file__).parent / "screen"
DEMOS = {
    "delivered": ("pod/client", "1.1.1.1:80", "--from", "demo"),
    "dropped": ("pod/client", "1.1.1.1:7777", "--from", "demo:dropped"),
    "unknown": ("pod/client", "1.1.1.1:7777", "--from", "demo:unknown"),
    "service": ("pod/client", "svc/web", "--from", "demo"),
}
FORMS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "80": ((), {"COLUMNS": "80"}),
    "120": ((), {"COLUMNS": "120"}),
    "200": ((), {"COLUMNS": "200"}),
    "pipe": ((), {}),
    "colour": (("--color", "always"), {"COLUMNS": "80"}),
    "c-locale": ((), {"COLUMNS": "80", "LANG": "C"}),
    "v": (("-v",), {"COLUMNS": "80"}),
    "wide.80": (("-o", "wide"), {"COLUMNS": "80"}),
    "wide.200": (("-o", "wide"), {"COLUMNS": "200"}),
}


@pytest.mark.parametrize("demo", DEMOS)
@pytest.mark.parametrize("form", FORMS)
def test_a_demo_on_a_screen(golden: Golden, demo: str, form: str) -> None:
    flags, env = FORMS[form]
    text = run("path", *DEMOS[demo], *flags, env=env).stdout
    shown = text.replace("\x1b", "<ESC>")
    golden(FOLDER / f"{demo}.{form}", shown)
    if form == "colour":
        return
    assert "<ESC>" not in shown
    assert max(map(len, text.splitlines())) <= int(env.get("COLUMNS", "100"))
    if form == "c-locale":
        assert text.isascii()


@pytest.mark.parametrize(
    ("env", "form"),
    [({"NO_COLOR": "1"}, "80"), ({"TERM": "dumb"}, "80"), ({}, "colour"), ({"LANG": "C"}, "")],
    ids=["NO_COLOR", "dumb", "colour", "C"],
)
def test_a_real_terminal_shows_the_same(env: dict[str, str], form: str) -> None:
    code, text = on_a_terminal("path", *DEMOS["dropped"], columns=80, env=env)
    assert code == 3
    if form:
        assert text.replace("\x1b", "<ESC>") == (FOLDER / f"dropped.{form}").read_text()
    else:
        assert text.isascii()
