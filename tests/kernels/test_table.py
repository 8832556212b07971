"""docs/kernels.md is what kernels told, and they were asked for the programs that there are."""

from __future__ import annotations

from kubectl_ebpfnet.node.trace.packets import PROGRAMS
from tests.kernels import table
from tests.node.trace.expected import EXPECTED

AGAIN = "the page is older than the programs or the checks: make kernels"


def test_the_page_is_made_of_what_kernels_told() -> None:
    assert table.PAGE.read_text() == table.page(table.told()), AGAIN


def test_every_program_and_every_check_is_in_it() -> None:
    kept = table.told()
    assert kept
    for each in kept.values():
        asked = len(each["attached"]) + len(each["refused"])
        assert asked == len(PROGRAMS), AGAIN
        assert set(each["attached"]) <= set(PROGRAMS.values()), AGAIN
        assert set(each["checks"]) == set(EXPECTED), AGAIN
