"""Traffic of real kernels, broken and healthy, against what `path` makes of their records.

Each kernel is booted once; `make kernels` names more than the one that CI boots.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.kernels import machine
from tests.kernels.debian import Unavailable
from tests.kernels.expected import EXPECTED
from tests.kernels.machine import Report

SERIES = os.environ.get("EBPFNET_KERNELS", "6.12").split()
_LONGEST_S = 700

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.timeout(_LONGEST_S)]


@pytest.fixture(scope="module", params=SERIES)
def report(request: pytest.FixtureRequest) -> Report:
    """What a kernel told; skips where it cannot be had."""
    try:
        told = machine.boot(request.param)
    except Unavailable as error:
        pytest.skip(f"no kernels here: {error}")
    print(f"Linux {told.kernel}: {told.seconds:.0f} s")
    return told


def test_every_check_was_made(report: Report) -> None:
    assert {name: told["error"] for name, told in report.told.items() if told["error"]} == {}
    assert set(report.told) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_path_says_what_traffic_shows(report: Report, name: str) -> None:
    EXPECTED[name].check(report.told[name]["told"])


def test_no_record_holds_a_secret(report: Report) -> None:
    for name, told in report.told.items():
        kept = json.dumps(told["told"].get("records", []))  # a kernel may lack the device
        secrets = told["told"].get("secrets", [])
        assert not [secret for secret in secrets if secret in kept], name
    assert sum(len(told["told"].get("secrets", [])) for told in report.told.values()) > 2
