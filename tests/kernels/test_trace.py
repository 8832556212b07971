"""Packets traced on Debian's kernels, in virtual machines: the checks of tests/node/trace.

Our objects are compiled here, loaded there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.node.bpf.libbpf import BUILT
from tests.kernels import machine, table
from tests.kernels.debian import Unavailable
from tests.kernels.machine import Report
from tests.kernels.test_kernels import SERIES
from tests.node.trace import checks, expected, programs

_LONGEST_S = 900
_HERE = Path(checks.__file__).parent
_SITE = "/site"

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.kernel,
    pytest.mark.timeout(_LONGEST_S),
    pytest.mark.skipif(bool(programs.why_not()), reason=programs.why_not()),
]


@pytest.fixture(scope="module", params=SERIES)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What a kernel told; skips where it cannot be had."""
    compiled = Path(programs.compiled(tmp_path_factory.mktemp("bpf")))
    files = {checks.OBJECT: compiled.read_bytes()}
    for path in BUILT.glob("*.o"):
        files[f"{_SITE}/kubectl_ebpfnet/node/bpf/built/{path.name}"] = path.read_bytes()
    for name in ("__init__", "checks", "lan"):
        files[f"{_SITE}/tests/node/trace/{name}.py"] = (_HERE / f"{name}.py").read_bytes()
    try:
        told = machine.boot(request.param, (checks.__name__,), files)
    except Unavailable as error:
        pytest.skip(f"no kernels here: {error}")
    if table.WANTED:
        table.keep(request.param, told)
    return told


@pytest.mark.parametrize("name", expected.EXPECTED)
def test_what_is_seen(report: Report, name: str) -> None:
    assert report.told[name]["error"] == ""
    expected.EXPECTED[name](report.told[name]["told"])
