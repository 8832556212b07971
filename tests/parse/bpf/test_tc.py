"""parse.tc, on what iproute2 6.1 and the machine of tp06 printed."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.parse.bpf import tc
from tests.parse.parse_samples import line_at, sample


def test_the_program_of_tp06() -> None:
    data = sample("iproute2-unknown/tp06-node/tc-filter-show-dev-lxcf4cd39e34601-ingress")
    (found,) = tc.filters(data, "lxcf4cd39e34601", "ingress")
    assert found == Attachment(
        hook="clsact/ingress",
        device="lxcf4cd39e34601",
        program_name="bpf_lxc.o:[from-container]",
        program_id=13245,
        tag="7febdcdfe7cdd86f",
        priority=1,
    )
    assert "handle 0x1" in line_at(data, found.span.line)


def test_a_newer_tc_prints_the_programs_name_too() -> None:
    line = (
        b"filter protocol all pref 1 bpf chain 0 handle 0x1 bpf_lxc.o:[tc/entry] direct-action"
        b" not_in_hw id 108 name cil_from_contai tag 59f4a931744dcdc6 jited \n"
    )
    (found,) = tc.filters(line, "lxc1", "ingress")
    assert (found.program_name, found.program_id) == ("bpf_lxc.o:[tc/entry]", 108)
    (unnamed,) = tc.filters(line.replace(b"bpf_lxc.o:[tc/entry] ", b""), "lxc1", "ingress")
    assert unnamed.program_name == "cil_from_contai"


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_the_hook_is_of_the_direction(direction: str) -> None:
    data = sample(f"iproute2-6.1.0/netns/tc-filter-show-dev-lxc1-{direction}")
    assert {found.hook for found in tc.filters(data, "lxc1", direction)} == {f"clsact/{direction}"}


def test_several_filters_are_in_order() -> None:
    data = sample("iproute2-6.1.0/netns/tc-filter-show-dev-lxc1-ingress")
    first, second, third = tc.filters(data, "lxc1", "ingress")
    assert [one.priority for one in (first, second, third)] == [1, 5, 7]
    assert [one.direct_action for one in (first, second, third)] == [True, False, True]
    assert first.program_name == second.program_name == "cls:[*fsobj]"  # behind `flowid 1:1`
    assert first.tag == "59f4a931744dcdc6"
    assert (third.program_name, third.program_id) == ("", None)  # classic BPF has no program


def test_other_classifiers_are_one_for_each_preference() -> None:
    data = (
        b"filter protocol ip pref 49152 u32 chain 0 \n"
        b"filter protocol ip pref 49152 u32 chain 0 fh 800: ht divisor 1 \n"
        b"filter protocol ip pref 49152 u32 chain 0 fh 800::800 order 2048 flowid :1\n"
        b"filter protocol all pref 2 flower chain 0 handle 0x1 \n"
        b"  not_in_hw\n"
        b"\taction order 1: gact action drop\n"
    )
    u32, flower = tc.filters(data, "eth0", "egress")
    assert (u32.classifier, u32.priority, u32.protocol) == ("u32", 49152, "ip")
    assert (flower.classifier, flower.priority, flower.protocol) == ("flower", 2, "")
    assert (flower.span.line, flower.span.last, flower.program_name) == (4, 6, "")


def test_nothing_is_nothing() -> None:
    assert tc.filters(b"", "eth0", "egress") == ()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\nqdisc clsact ffff: parent ffff:fff1\n", 2),
        (b"filter protocol\n", 1),
        (b"filter protocol all pref one bpf chain 0 handle 0x1 x id 1\n", 1),
        (b"filter protocol all pref 1 bpf chain 0 handle 0x1 x id\n", 1),
    ],
)
def test_an_unintelligible_record_is_named(data: bytes, line: int) -> None:
    with pytest.raises(ParseError) as raised:
        tc.filters(data, "eth0", "ingress")
    assert (raised.value.source, raised.value.line) == ("tc filter", line)
