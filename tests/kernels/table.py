"""docs/kernels.md: what Debian's kernels took of trace's programs, and which scenarios they ran.

`make kernels` keeps what each guest told, in recorded/trace.json, and writes the page of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.machine import Report
from tests.node.trace.expected import EXPECTED

WANTED = bool(os.environ.get("EBPFNET_KERNELS_TABLE"))
"""Read here: a test has no environment of its machine."""
KEPT = Path(__file__).parent / "recorded" / "trace.json"
PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
_HEAD = """# Kernels

What Debian's kernels took of the BPF programs of `trace`, and which packets were followed there,
in virtual machines (amd64, QEMU without KVM). `make kernels` writes this page of what the guests
told; a kernel that it did not boot keeps its column, or has none. What a check sends stands in
`tests/node/trace/checks.py`, what has to come of it in `expected.py` there.

"""
_FOOT = """
The second layer (fexit and fentry: what programs answer, what routing decides) wants BPF
trampolines; its checks are in `tests/node/trace/second_layer.py`. Not run: arm64, for which no
guest is made yet; netkit and a full conntrack table, for which no check traces packets yet.
"""


def keep(series: str, report: Report) -> None:
    """Keep what a kernel told, and write the page anew.

    Args:
        series: of debian.SUITES.
        report: of the checks of tests/node/trace.
    """
    kept = told()
    programs = report.told["programs"]["told"] or {"attached": [], "refused": []}
    kept[series] = {
        "kernel": report.kernel,
        **programs,
        "checks": {name: _outcome(name, report) for name in EXPECTED},
    }
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(kept))


def keep_second_layer(series: str, report: Report) -> None:
    """Keep what a kernel told of the second layer, beside what `keep` kept of it.

    Args:
        series: of debian.SUITES.
        report: of the checks of tests/node/trace/second_layer.py.
    """
    kept = told()
    if series not in kept:
        return
    checks = {name: _verdicts(each) for name, each in report.told.items()}
    kept[series]["second"] = checks
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(kept))


def _verdicts(check: dict[str, Any]) -> str:
    """Return whether a check of the second layer saw what programs and functions did."""
    if check["error"]:
        return "no"
    told = check["told"]
    if "unsupported" in told:
        return "lacks it"
    seen = told.get("calls") or told.get("verdicts") or told.get("told")
    return "yes" if seen and not told.get("lacking") else "no"


def told() -> dict[str, Any]:
    """Return what each kernel told, by its series."""
    found: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def page(kept: dict[str, Any]) -> str:
    """Return the page of what kernels told."""
    columns = sorted(kept.values(), key=lambda each: _version(each["kernel"]))
    places = list(dict.fromkeys(place for each in columns for place in each["attached"]))
    rows = [["", *(f"`{each['kernel']}`" for each in columns)], ["---"] * (len(columns) + 1)]
    rows += [
        [f"program `{place}`", *("yes" if place in each["attached"] else "no" for each in columns)]
        for place in places
    ]
    rows += [
        [f"`{name}`", *(each["checks"].get(name, "not run") for each in columns)]
        for name in EXPECTED
    ]
    second = list(dict.fromkeys(name for each in columns for name in each.get("second", {})))
    rows += [
        [f"second layer: `{name}`",
         *(each.get("second", {}).get(name, "not run") for each in columns)]
        for name in second
    ]  # fmt: skip
    notes = [
        f"* `{each['kernel']}` refused {refused}\n"
        for each in columns
        for refused in each["refused"]
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return _HEAD + table + ("\n" + "".join(notes) if notes else "") + _FOOT


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.partition("-")[0].split(".")[:2])


def _outcome(name: str, report: Report) -> str:
    """Return `yes`, `no`, or `lacks it` where the kernel has not what the check wants."""
    if report.told[name]["error"]:
        return "no"
    try:
        EXPECTED[name](report.told[name]["told"])
    except pytest.skip.Exception:
        return "lacks it"
    except (AssertionError, LookupError, ValueError):
        return "no"
    return "yes"
