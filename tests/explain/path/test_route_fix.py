"""Commands that delete what refuses a packet."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.explain.path.stages.route_fix import delete_what_refuses
from kubectl_ebpfnet.model.kernel import Route, Rule

_RULE = Rule(60, "77")


@pytest.mark.parametrize(
    ("decision", "version", "command"),
    [
        (
            Decision(Route(ip_network("0.0.0.0/0"), None, "", "77", "blackhole"), _RULE, "is it"),
            4,
            "ip route del blackhole default table 77",
        ),
        (
            Decision(
                Route(ip_network("fd00::/64"), None, "", type="prohibit", metric=9), None, "x"
            ),
            6,
            "ip -6 route del prohibit fd00::/64 table main metric 9",
        ),
        (Decision(None, Rule(30, "", action="blackhole"), "x"), 4, "ip rule del priority 30"),
    ],
)
def test_what_refuses_is_deleted_by_name(decision: Decision, version: int, command: str) -> None:
    fix = delete_what_refuses(decision, "on node1", version)
    assert fix is not None
    assert fix.command == command
    assert "on node1" in fix.text


def test_nothing_is_deleted_where_no_entry_refuses() -> None:
    assert delete_what_refuses(Decision(None, _RULE, "no route to 1.1.1.1"), "", 4) is None
    by_kernel = Decision(None, _RULE, "EACCES", differs="default via eth0")
    assert delete_what_refuses(by_kernel, "", 4) is None
