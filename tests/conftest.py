"""What all tests share: golden files, updated by one flag."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[Path, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the program says into the golden files, to be read in the diff",
    )


def pytest_configure() -> None:
    """Let children be interrupted: a shell starts jobs in the background with SIGINT ignored, and
    what is ignored stays so over exec."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Kernel tests run one after the other, in whichever worker: they share one kernel."""
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.xdist_group("kernel"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(file, text)`: the file holds exactly this text; `--update-golden` makes it so."""

    def check(file: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        assert file.exists(), f"{file} is missing: pytest --update-golden writes it"
        assert text == file.read_text(encoding="utf-8"), (
            f"not what {file} holds; if it is right now: pytest --update-golden"
        )

    return check
