"""What pyroute2 is taught about tc filters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bpf_programs as made
import pytest
from hook_world import Net

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.node import tc_ids

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}"),
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def net(stack: ExitStack) -> Net:
    return Net.new(stack)


@pytest.fixture
def pins(stack: ExitStack, tmp_path: Path) -> Path:
    return made.bpffs(stack, tmp_path / "bpf")


def table(*names: str) -> Any:
    return type("options", (), {"nla_map": tuple((name, "uint32") for name in names)})


KNOWN, ADDED = ("ONE", "TWO"), (("THREE", "cdata"), ("FOUR", "hex"))


def test_pyroute2_is_taught_once() -> None:
    from pyroute2.netlink.rtnl import tcmsg

    tc_ids.teach()
    before = tcmsg.sched_bpf.options.nla_map, tcmsg.tcmsg.nla_map
    # As the kernel numbers them.
    assert [row[0] for row in before[0]][10:12] == ["TCA_BPF_TAG", "TCA_BPF_ID"]
    assert before[1][11][0] == "TCA_CHAIN"
    tc_ids.teach()
    assert (tcmsg.sched_bpf.options.nla_map, tcmsg.tcmsg.nla_map) == before


def test_rows_are_put_behind_a_known_table() -> None:
    one = table(*KNOWN)
    assert tc_ids.extend(one, KNOWN, ADDED)
    assert one.nla_map == (("ONE", "uint32"), ("TWO", "uint32"), *ADDED)


def test_a_table_that_has_them_is_left_alone() -> None:
    one = table(*KNOWN, "THREE", "FOUR", "FIVE")
    before = one.nla_map
    assert tc_ids.extend(one, KNOWN, ADDED)
    assert one.nla_map is before


@pytest.mark.parametrize(
    "one",
    [
        table("ONE"),
        table(*KNOWN, "THREE"),
        table("NEW", *KNOWN),
        type("options", (), {}),
        type("options", (), {"nla_map": {"ONE": "none"}}),
    ],
)
def test_another_table_is_not_touched(one: Any) -> None:
    before = getattr(one, "nla_map", None)
    assert not tc_ids.extend(one, KNOWN, ADDED)
    assert getattr(one, "nla_map", None) is before


def test_a_pyroute2_that_cannot_be_taught_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2.netlink.rtnl import tcmsg

    monkeypatch.setattr(tcmsg.sched_bpf.options, "nla_map", (("TCA_BPF_NEW", "hex"),))
    with pytest.raises(Unsupported, match="their programs are not known"):
        tc_ids.teach()


_FILTERS_FIRST = """
import sys
sys.path[:] = sys.argv[1].split(":")
from pyroute2 import IPRoute
from kubectl_ebpfnet.node.filters import Filters
with IPRoute() as netlink:
    (index,) = netlink.link_lookup(ifname="a1")
    assert list(netlink.get_filters(index=index, parent=0xFFFFFFF2))
with Filters() as filters:
    (found,) = filters.of(index, "ingress")
print(found.program, found.chain)
"""


def test_pyroute2_can_be_taught_after_it_has_seen_filters(net: Net, pins: Path) -> None:
    program = made.load(net.stack, made.SCHED_CLS, "p")
    path = made.pin(program, pins / "p")
    net.run("tc qdisc add dev a1 clsact")
    net.run(f"tc filter add dev a1 ingress chain 4 bpf da pinned {path}")
    said = made.inside(net.name, sys.executable, "-c", _FILTERS_FIRST, ":".join(sys.path))
    assert said.split() == [str(made.id_of(program)), "4"]
