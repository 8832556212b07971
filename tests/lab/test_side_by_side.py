"""A test that hangs beside others ends by its timeout, with a report, and so does the run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.cluster.processes import run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")

PLUGIN = """
from tests.lab.cluster.tools.side_by_side import SideBySide

def pytest_configure(config):
    config.addinivalue_line("markers", "side_by_side")
    config.pluginmanager.register(SideBySide())
"""
HANGS = """
import subprocess
import pytest

pytestmark = pytest.mark.side_by_side

@pytest.mark.timeout(2)
def test_hangs():
    subprocess.run(("sh", "-c", "sleep 600 & echo $$ $! > pids; wait"), capture_output=True)

def test_goes_on():
    pass
"""


def test_a_command_of_the_lab_that_hangs_is_given_up() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sleep", "600"], timeout=0.1)


def test_a_timeout_ends_the_run_with_a_report(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "test_it.py").write_text(HANGS)
    words = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_it.py")
    done = subprocess.run(
        (sys.executable, "-m", "pytest", *words), cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "test_hangs" in done.stdout
    assert "Timeout" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    end = time.monotonic() + 20
    for pid in (tmp_path / "pids").read_text().split():
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, "a child of the test runs on"
            time.sleep(0.01)
