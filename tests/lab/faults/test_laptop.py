"""A full disk, a token that has expired, a clock that is wrong."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.cluster.processes import run
from tests.lab.conftest import Lab
from tests.lab.faults.runs import MARKS, SECONDS, START, a_run, every

pytestmark = MARKS


@pytest.mark.parametrize("command", ["path", "flows", "capture"])
def test_a_full_disk(our_lab: Lab, nothing_left: Path, command: str, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)])
    try:
        (full / "filler").write_bytes(b"x" * (12 << 10))
        more = ("-o", str(full / "x.zip")) if command == "capture" else ()
        with a_run(our_lab, "disk full", command, nothing_left, *more, TMPDIR=str(full)) as one:
            code = one.ends()
        assert sorted(os.listdir(full)) == ["filler"]
    finally:
        run(["umount", str(full)])
    if command == "capture":
        assert code == 1
        assert "No space left on device" in one.err
    else:
        assert code == 0  # nothing of it is so long that it needs a file


@every
def test_a_token_that_has_expired(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "token expired", command, nothing_left, "--token=expired") as one:
        assert one.ends(SECONDS + START) == 1
    assert "does not accept these credentials (401)" in one.err


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that shifts a program's clock by WRONG_CLOCK seconds."""
    built = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    source = Path(__file__).with_name("wrong_clock.c")
    run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(built), str(source)])
    return str(built)


@pytest.mark.parametrize("hours", [-2, 2])
@every
def test_a_clock_that_is_wrong(
    our_lab: Lab, nothing_left: Path, wrong_clock: str, command: str, hours: int
) -> None:
    """The lab's certificates are younger than two hours, so the program does not look at them."""
    more = () if command == "probe-lb" else ("--timeout=60s",)
    with (
        a_live_run(our_lab) as others,
        a_run(
            our_lab, f"clock {hours:+} h", command, nothing_left, "--insecure-skip-tls-verify",
            *more, LD_PRELOAD=wrong_clock, WRONG_CLOCK=str(hours * 3600),
        ) as one,
    ):  # fmt: skip
        if command == "netkat":
            one.echoes()
        code = one.ends(60)
        assert "deletionTimestamp" not in our_lab.get("namespaces", others)["metadata"]
    assert code == 0, one.err
    if command != "netkat":
        how = "behind" if hours < 0 else "ahead of"
        assert f"this machine's clock is 2 h 0 min {how} the API server's" in one.err


@contextmanager
def a_live_run(lab: Lab) -> Iterator[str]:
    """The namespace of somebody's run that is not over; a sweep looks at nothing else."""
    run_id = secrets.token_hex(4)
    name = f"ebpfnet-{run_id}"
    labels = {"app.kubernetes.io/managed-by": "kubectl-ebpfnet", "ebpfnet.dev/run": run_id}
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    assert lab.kubectl("create", "-f", "-", stdin=json.dumps(body)).returncode == 0
    try:
        yield name
    finally:
        lab.kubectl("delete", "namespace", name, "--wait=false")


def test_a_clock_before_the_certificates_is_named(
    our_lab: Lab, nothing_left: Path, wrong_clock: str
) -> None:
    years = str(-10 * 365 * 86400)
    with a_run(
        our_lab, "clock -10 years", "path", nothing_left,
        LD_PRELOAD=wrong_clock, WRONG_CLOCK=years,
    ) as one:  # fmt: skip
        assert one.ends() == 1
    assert "certificate is not yet valid" in one.err
