"""Maps of tail calls out of real ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import TailCalls
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.cilium import pins as cilium_pins
from kubectl_ebpfnet.node.cilium import tail_calls
from tests.lab.cluster.datapath import syscall_bpf
from tests.node.bpf import bpf_programs as made
from tests.node.cilium.cilium_bpffs import Pins, bpffs, why_not

pytestmark = pytest.mark.kernel

PROG_ARRAY = 3


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        monkeypatch.setattr(cilium_pins, "root", lambda: folder)
        yield Pins(folder)


def states() -> list[TailCalls]:
    return list(tail_calls.states(NodeRequest(1, node_argv("tail-calls"))))


def test_maps_that_hold_programs_and_maps_that_hold_none(pins: Pins) -> None:
    slot = struct.pack("=I", 7)
    for name, most in (
        ("cilium_calls_00448", 50),
        ("cilium_calls_00731", 50),
        ("cilium_call_policy", 65535),
    ):
        syscall_bpf.create_map(pins.folder / name, PROG_ARRAY, 4, 4, most)
    pins.make("cilium_policy_v2_00448", 12, 12, {})
    pins.make("cilium_policy_v2_00731", 12, 12, {})
    with ExitStack() as stack:
        program = struct.pack("=I", made.load(stack, made.SCHED_CLS, "tail_handle"))
        for name, key in (
            ("cilium_calls_00448", slot),
            ("cilium_call_policy", struct.pack("=I", 731)),
        ):
            with syscall_bpf.Map(pins.folder / name, 4, 4) as table:
                table.put(key, program)
        assert states() == [
            TailCalls("cilium_calls_00448", True),
            TailCalls("cilium_calls_00731", False),
            TailCalls("cilium_call_policy", False, 448),
            TailCalls("cilium_call_policy", True, 731),
        ]
        with syscall_bpf.Map(pins.folder / "cilium_calls_00448", 4, 4) as table:
            table.remove(slot)
        assert TailCalls("cilium_calls_00448", False) in states()


def test_a_cilium_without_such_maps_has_none(pins: Pins) -> None:
    assert states() == []


def test_what_cannot_be_read_is_an_error(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    syscall_bpf.create_map(pins.folder / "cilium_calls_00448", PROG_ARRAY, 4, 4, 50)

    def refused(_: object) -> int:
        raise KernelError("refused", 1)

    monkeypatch.setattr(tail_calls.pins.Map, "pinned", refused)
    with pytest.raises(KernelError):
        states()
