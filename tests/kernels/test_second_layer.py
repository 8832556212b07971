"""Verdicts of programs, and functions of the kernel, seen on Debian's kernels in virtual machines:
the checks of tests/node/trace/second_layer.py. The machine's own kernel may refuse trampolines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.node.bpf.libbpf import BUILT
from kubectl_ebpfnet.node.trace.packets import FUNCTIONS
from tests.kernels import machine, table
from tests.kernels.debian import Unavailable
from tests.kernels.machine import Report
from tests.kernels.test_kernels import SERIES
from tests.node.trace import programs, second_layer
from tests.node.trace.checks import OBJECT

_LONGEST_S = 900
_HERE = Path(second_layer.__file__).parent

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.kernel,
    pytest.mark.timeout(_LONGEST_S),
    pytest.mark.skipif(bool(programs.why_not()), reason=programs.why_not()),
]


_FORTH = ["client ip_output", "router ip_forward", "router ip_output", "server ip_local_deliver"]
_BACK = ["server ip_output", "router ip_forward", "router ip_output", "client ip_local_deliver"]
_CALLS = [*(f"forth {call}" for call in _FORTH), *(f"back {call}" for call in _BACK)]
_IPV6 = {"ip_local_deliver": "ip6_input", "ip_forward": "ip6_forward", "ip_output": "ip6_output"}
_DROPPED = {
    "shot": ("router c0 clsact/ingress shot TC_ACT_SHOT", "router", "TC_INGRESS"),
    "tail_call": ("router c0 clsact/ingress caller TC_ACT_SHOT", "router", "TC_INGRESS"),
    "egress": ("router s0 clsact/egress shot TC_ACT_SHOT", "router", "TC_EGRESS"),
    "tcx": ("router c0 tcx/ingress shot TC_ACT_SHOT", "router", "TC_INGRESS"),
    "xdp_generic": ("server eth0 xdp xdp_drop XDP_DROP", "server", "XDP NOT_SPECIFIED"),
    "xdp_driver": ("server eth0 xdp xdp_drop XDP_DROP", "server", "XDP NOT_SPECIFIED"),
}
"""The one verdict of a check, and the kernel's drop behind it: where, and one of these reasons."""


@pytest.fixture(scope="module", params=SERIES)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What a kernel told; skips where it cannot be had."""
    compiled = Path(programs.compiled(tmp_path_factory.mktemp("bpf")))
    files = {OBJECT: compiled.read_bytes()}
    for path in BUILT.glob("*.o"):
        files[f"/site/kubectl_ebpfnet/node/bpf/built/{path.name}"] = path.read_bytes()
    for name in ("__init__", "checks", "second_layer", "lan"):
        files[f"/site/tests/node/trace/{name}.py"] = (_HERE / f"{name}.py").read_bytes()
    try:
        told = machine.boot(request.param, (second_layer.__name__,), files)
    except Unavailable as error:
        pytest.skip(f"no kernels here: {error}")
    if table.WANTED:
        table.keep_second_layer(request.param, told)
    return told


def _told(report: Report, name: str) -> dict[str, Any]:
    assert report.told[name]["error"] == ""
    told: dict[str, Any] = report.told[name]["told"]
    return told


def test_what_routing_decides(report: Report) -> None:
    told = _told(report, "functions")
    assert (told["lacking"], told["calls"]) == ([], _CALLS)
    by_ipv6 = _told(report, "functions_ipv6")
    wanted = [" ".join(_IPV6.get(word, word) for word in call.split()) for call in _CALLS]
    assert by_ipv6["calls"] == wanted


def test_a_nat_by_tc_is_followed_with_its_verdicts(report: Report) -> None:
    told = _told(report, "nat")
    assert told["calls"] == _CALLS
    assert told["verdicts"] == {
        "forth router s0 clsact/egress snat TC_ACT_OK by address": 1,
        "back router s0 clsact/ingress undo TC_ACT_OK by tuple": 1,
    }


@pytest.mark.parametrize("name", _DROPPED)
def test_the_program_that_drops(report: Report, name: str) -> None:
    verdict, node, reasons = _DROPPED[name]
    told = _told(report, name)
    if "unsupported" in told:
        pytest.skip(told["unsupported"])
    assert told["lacking"] == []
    assert told["verdicts"] == {f"forth {verdict} by tuple": 1}
    (drop,) = told["drops"]
    # Before Linux 5.17 a drop has no reason.
    assert drop in [f"forth {node} {reason}" for reason in (*reasons.split(), "")]


def test_a_program_that_replaces_another_is_watched(report: Report) -> None:
    told = _told(report, "replaced")
    assert told["told"] == ["undo TC_ACT_OK", "shot TC_ACT_SHOT"]
    # No program is kept by us any more; older kernels do not tell what a link is of.
    assert told["left"] in (0, len(FUNCTIONS))
