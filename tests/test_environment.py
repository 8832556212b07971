"""A test knows nothing of the machine that it runs on: tests/conftest.py takes its environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.conftest import KEPT


def test_nothing_of_the_machines_environment_is_left() -> None:
    ours = {"HOME", "LC_ALL", "TZ", *KEPT}
    left = {name for name in os.environ if not name.startswith(("PYTEST_", "PYTHON"))}
    assert left <= ours
    assert list(Path.home().iterdir()) == []
    assert (time.tzname[0], time.timezone) == ("UTC", 0)
