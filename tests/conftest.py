"""What all tests share: golden files, fuzzing, skips, and an environment that no machine has."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# Every run takes the same few examples, so a test that failed fails again. `make fuzz` hunts: many
# examples, others each time; a failure prints the decorator that reproduces it.
_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", _ANY_SPEED, max_examples=15, derandomize=True)
settings.register_profile("fuzz", _ANY_SPEED, max_examples=500, print_blob=True)
settings.load_profile("few")

Golden = Callable[[Path, str], None]
LAB = Path(__file__).parent / "lab"
ROW = "tests/node/bpf/"
"""Kernel tests that list every program, link and cgroup of the machine."""
KEPT = ("PATH", "TMPDIR", "NETKAT_GIGABYTE", "VIRTUAL_ENV")
"""What a test may know of the machine's environment; beside PYTEST_* and PYTHON*."""


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


class Rows(LoadScopeScheduling):
    """Tests of a row run one after the other, in whichever worker takes it."""

    def _split_scope(self, nodeid: str) -> str:
        return _row(nodeid)


def _row(nodeid: str) -> str:
    """The row of a test: what lists the machine's programs, or its file.

    Kernel tests share one kernel, but each looks at namespaces and programs of its own.
    Not marks of xdist's: pytest 9.2 keeps a test's name where xdist 3.8 does not look for it.
    """
    return ROW if nodeid.startswith(ROW) else nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In workers of xdist, rows that take long first (with --no-loadscope-reorder)."""
    if not hasattr(config, "workerinput"):
        return
    weights = Counter[str]()  # a kernel test takes as long as ten others
    for item in items:
        weights[_row(item.nodeid)] += 10 if item.get_closest_marker("kernel") else 1
    items.sort(key=lambda item: -weights[_row(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Rows:
    """Whole rows, in the order of `pytest_collection_modifyitems`."""
    return Rows(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than processors: kernel tests wait half of their time, others a sixth."""
    return (os.cpu_count() or 1) + 2


@pytest.fixture(autouse=True, scope="module")
def _environment_of_no_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No kubeconfig, proxy, locale, time zone, colour or width of the machine; the lab has its own
    ways to a cluster, which the environment names."""
    if request.path.is_relative_to(LAB):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(KEPT):
            if not name.startswith(("PYTEST_", "PYTHON")):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, for each reason."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{reasons.total()} tests were skipped")
    for why, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5}  {why}")


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


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports by name, whether or not the machine has an /etc/services."""
    known = {("http", "tcp"): 80, ("domain", "udp"): 53}

    def port(name: str, protocol: str) -> int:
        if (name, protocol) not in known:
            raise OSError("service/proto not found")
        return known[name, protocol]

    monkeypatch.setattr(socket, "getservbyname", port)
