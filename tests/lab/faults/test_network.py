"""A network to the API server that is slow, cut or silent, and a server that is busy.

A relay of the test's own stands before the lab's API server (tests/lab/cluster/tools/relay.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab.cluster.tools.relay import Busy, Relay
from tests.lab.conftest import Lab
from tests.lab.faults.runs import MARKS, REMOVAL, SECONDS, START, Run, a_run, cleaned, every

pytestmark = MARKS
SILENCE = {"netkat": 75, "probe-lb": 120}
"""Seconds of silence after which what has no --timeout is given up."""


def in_the_middle(one: Run) -> None:
    """Wait until a run asks, or a session is there."""
    one.runs()
    if "netkat" in one.name:
        one.echoes()


def says_what_is_left(one: Run) -> None:
    """What could not be deleted was said, with how; then it is."""
    assert re.search(f"namespace {one.namespace} (may be left|could not be deleted)", one.err)
    assert "kubectl ebpfnet cleanup" in one.err
    cleaned(one)


@every
def test_half_a_minute_of_latency(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Relay() as relay:
        relay.delay = 30
        file = relay.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "30 s of latency", command, nothing_left, KUBECONFIG=str(file)) as one:
            code = one.ends(60)
    assert code == 1
    assert re.search(r"no answer (within|in time)", one.err), one.err
    assert one.took < 2 * SECONDS + START


@every
def test_half_a_minute_of_latency_from_the_middle_on(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Relay() as relay:
        file = relay.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "30 s from now on", command, nothing_left, KUBECONFIG=str(file)) as one:
            in_the_middle(one)
            relay.delay = 30
            code = one.ends(SILENCE.get(command, SECONDS) + REMOVAL + START)
    assert code in (0, 1, 4)
    says_what_is_left(one)


@every
def test_connections_are_cut(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    """New ones pass: so nothing is left."""
    with Relay() as relay:
        file = relay.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "network cut", command, nothing_left, KUBECONFIG=str(file)) as one:
            in_the_middle(one)
            relay.cut()
            code = one.ends()
    assert code in (0, 1, 4)
    if command == "netkat":
        assert code == 1
        assert "the connection ended" in one.err


@every
def test_a_network_that_falls_silent(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Relay() as relay:
        file = relay.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "network silent", command, nothing_left, KUBECONFIG=str(file)) as one:
            in_the_middle(one)
            relay.silent = True
            code = one.ends(SILENCE.get(command, SECONDS) + REMOVAL + START)
    assert code in (0, 1, 4)
    says_what_is_left(one)


@every
def test_a_server_that_is_busy_for_a_second_changes_nothing(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Busy(1, always=False) as busy:
        file = busy.kubeconfig(our_lab.kubeconfig, tmp_path)
        more = () if command == "probe-lb" else ("--timeout=60s",)
        with a_run(our_lab, "429 once", command, nothing_left, *more, KUBECONFIG=str(file)) as one:
            if command == "netkat":
                one.echoes()
            code = one.ends(60)
    assert busy.refused > 5
    assert code == 0, one.err


@every
def test_a_server_that_stays_busy(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Busy(60, always=True) as busy:
        file = busy.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "429 always", command, nothing_left, KUBECONFIG=str(file)) as one:
            code = one.ends(60)
    assert code == 1
    assert re.search(r"no answer within the \d+ s|[Tt]oo many requests", one.err), one.err


@every
def test_a_server_that_is_busy_from_the_middle_on(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str
) -> None:
    with Busy(60, always=False) as busy:
        busy.seconds = 0
        file = busy.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, "429 from now on", command, nothing_left, KUBECONFIG=str(file)) as one:
            in_the_middle(one)
            busy.seconds, busy.always = 60, True
            if command == "netkat":
                one.process.stdin.close()
                one.process.stdin = None  # communicate would flush it
            code = one.ends(SILENCE.get(command, SECONDS) + REMOVAL + START)
    assert code in (0, 1, 4)
    says_what_is_left(one)
