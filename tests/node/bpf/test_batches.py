"""Reading maps in batches, where the kernel answers in other ways than usual."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

import pytest

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node.bpf import maps
from kubectl_ebpfnet.node.bpf import syscall as bpf
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE
from tests.node.cilium.cilium_bpffs import Pins, bpffs, lpm_address, why_not

pytestmark = pytest.mark.kernel

Attr = bytes | ctypes.Array[ctypes.c_char]
COUNT = 1000


@pytest.fixture
def pins() -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        yield Pins(folder)


@pytest.fixture(params=[HASH, LPM_TRIE], ids=["hash", "trie"])
def table(pins: Pins, request: pytest.FixtureRequest) -> Iterator[maps.Map]:
    """A map of COUNT keys whose values are all different."""
    entries = {
        lpm_address(f"10.{n >> 8}.{n & 255}.0/24", 0): struct.pack("=I", n) for n in range(COUNT)
    }
    path = pins.make("numbers", 8, 4, entries, request.param, 2 * COUNT)
    with maps.Map.pinned(path) as opened:
        yield opened


def numbers(table: maps.Map) -> list[int]:
    """The values, sorted."""
    return sorted(struct.unpack("=I", value)[0] for _, value in table.items())


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, calls: range, *, after: bool) -> None:
    """Let some of the batch calls fail, before or after the kernel has answered them."""
    real = bpf.syscall
    made = 0

    def syscall(command: int, attr: Attr, what: str) -> int:
        nonlocal made
        if command != bpf.MAP_LOOKUP_BATCH:
            return real(command, attr, what)
        made += 1
        if made - 1 not in calls:
            return real(command, attr, what)
        if after:
            real(command, attr, what)
        else:
            struct.pack_into("=I", attr, 32, 0)
        raise KernelError(what, code)

    monkeypatch.setattr(maps, "syscall", syscall)


def batch_of_100(monkeypatch: pytest.MonkeyPatch) -> None:
    real = maps.Map.batches
    monkeypatch.setattr(maps.Map, "batches", lambda self: real(self, 100))


@pytest.mark.parametrize("after", [True, False], ids=["part", "nothing"])
def test_batches_that_are_cut_short(
    table: maps.Map, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    batch_of_100(monkeypatch)
    refuse(monkeypatch, errno.EINTR, range(3), after=after)
    assert numbers(table) == list(range(COUNT))


@pytest.mark.parametrize("code", [errno.EINVAL, 524])
def test_kernels_without_batches_are_read_one_by_one(
    table: maps.Map, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, code, range(99), after=False)
    assert numbers(table) == list(range(COUNT))
    with pytest.raises(Unsupported):
        next(table.batches())


def test_other_refusals_are_told(table: maps.Map, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_of_100(monkeypatch)
    refuse(monkeypatch, errno.EINVAL, range(1, 99), after=False)
    with pytest.raises(KernelError) as caught:
        numbers(table)
    assert not isinstance(caught.value, Unsupported)


def test_a_batch_that_is_too_small_grows(table: maps.Map, monkeypatch: pytest.MonkeyPatch) -> None:
    real = maps.Map.batches
    monkeypatch.setattr(maps.Map, "batches", lambda self: real(self, 1))
    assert numbers(table) == list(range(COUNT))


def test_a_pinned_map_cannot_be_changed(table: maps.Map) -> None:
    """The node side only reads: the kernel refuses what it does not mean to do."""
    key, value = next(table.items())
    assert table.lookup(key) == value
    key_memory, value_memory = bpf.buffer(key), bpf.buffer(bytes(4))
    attr = struct.pack("=IIQQQ", table.fd, 0, bpf.pointer(key_memory), bpf.pointer(value_memory), 0)
    with pytest.raises(KernelError) as caught:
        bpf.syscall(bpf.MAP_UPDATE_ELEM, attr, "write")
    assert caught.value.errno == errno.EPERM
