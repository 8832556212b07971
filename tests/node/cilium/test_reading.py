"""Real maps that are read in two halves at once."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.node.bpf import maps, syscall
from kubectl_ebpfnet.node.cilium import reading
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE, LRU_HASH
from tests.node.cilium.cilium_bpffs import Pins, bpffs, why_not

pytestmark = pytest.mark.kernel


@pytest.fixture
def pins() -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        yield Pins(folder)


def numbered(count: int) -> dict[bytes, bytes]:
    return {struct.pack("=II", 32, n): struct.pack("=IQ", n, n) for n in range(count)}


def read(pins: Pins, name: str) -> list[tuple[bytes, bytes]]:
    with maps.Map.pinned(pins.folder / name) as table:
        return [
            (keys.record(number), values.record(number))
            for keys, values in reading.in_halves(table)
            for number in range(keys.count)
        ]


@pytest.mark.parametrize("count", [0, 1, 5, 700, 3000])
@pytest.mark.parametrize(("kind", "most"), [(HASH, 4096), (LRU_HASH, 8192), (LPM_TRIE, 4096)])
def test_each_entry_comes_once(
    pins: Pins, monkeypatch: pytest.MonkeyPatch, kind: int, most: int, count: int
) -> None:
    monkeypatch.setattr(reading, "_BATCH", 256)
    entries = numbered(count)
    pins.make("cilium_any", 8, 12, entries, kind, most)
    assert sorted(read(pins, "cilium_any")) == sorted(entries.items())


def test_the_last_batch_of_the_first_half_goes_beyond_it(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would not notice where it never happened."""
    monkeypatch.setattr(reading, "_BATCH", 256)
    left_out = []
    real = reading._without

    def without(keys: reading.Columns, *others: reading.Columns) -> reading.Batch:
        found = real(keys, *others)
        left_out.append(keys.count - found[0].count)
        return found

    monkeypatch.setattr(reading, "_without", without)
    pins.make("cilium_any", 8, 12, numbered(3000), HASH, 4096)
    assert len(read(pins, "cilium_any")) == 3000
    assert len(left_out) == 1
    assert 0 < left_out[0] < 256


def test_a_map_is_read_from_its_middle_and_from_its_beginning(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BATCH", 256)
    begun = []
    real = maps.Map.batches

    def batches(
        table: maps.Map, size: int, bucket: int = 0
    ) -> Iterator[tuple[int, memoryview, memoryview]]:
        begun.append(bucket)
        return real(table, size, bucket)

    monkeypatch.setattr(maps.Map, "batches", batches)
    pins.make("cilium_any", 8, 12, numbered(3000), HASH, 4096)
    assert len(read(pins, "cilium_any")) == 3000
    assert begun == [2048, 0]


def test_a_kernel_without_batches_reads_one_by_one(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> Iterator[tuple[int, memoryview, memoryview]]:
        raise Unsupported("no batches", 524)
        yield

    monkeypatch.setattr(maps.Map, "batches", none)
    entries = numbered(300)
    pins.make("cilium_any", 8, 12, entries, HASH, 512)
    assert sorted(read(pins, "cilium_any")) == sorted(entries.items())


def test_an_error_of_either_half_is_raised(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 256)
    real = maps.Map.batches

    def fails(
        table: maps.Map, size: int, bucket: int = 0
    ) -> Iterator[tuple[int, memoryview, memoryview]]:
        for number, batch in enumerate(real(table, size, bucket)):
            if number == 2 and not bucket:
                raise syscall.KernelError("it is gone", 5)
            yield batch

    monkeypatch.setattr(maps.Map, "batches", fails)
    pins.make("cilium_any", 8, 12, numbered(3000), HASH, 4096)
    with pytest.raises(syscall.KernelError, match="it is gone"):
        read(pins, "cilium_any")
