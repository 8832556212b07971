"""A run that is interrupted, ended or killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.lab.conftest import Lab
from tests.lab.faults.runs import MARKS, REMOVAL, START, a_run, cleaned, every

pytestmark = MARKS


@every
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("when", ["deploying", "asking"])
def test_a_signal(our_lab: Lab, nothing_left: Path, command: str, number: int, when: str) -> None:
    with a_run(our_lab, f"{signal.strsignal(number)} while {when}", command, nothing_left) as one:
        one.deploys() if when == "deploying" else one.runs()
        if command == "netkat" and when == "asking":
            one.echoes()
        one.process.send_signal(number)
        code = one.ends(REMOVAL + START)
    assert code == 128 + number or (when == "asking" and code == 0)  # it had its answer


@every
def test_a_client_that_is_killed(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "SIGKILL", command, nothing_left) as one:
        one.runs()
        if command == "netkat":
            one.echoes()
        one.process.kill()
        assert one.ends() == -signal.SIGKILL
        cleaned(one)
