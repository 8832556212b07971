"""Masks of a batch against the same, looked at record by record."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.node.cilium.columns import Columns, how_many, places

SIZE = 6
BATCHES = st.lists(st.binary(min_size=SIZE, max_size=SIZE), max_size=60)
FEW = st.sampled_from((b"\0", b"\1", b"\2", b"\xff"))


def of(records: list[bytes]) -> Columns:
    return Columns(b"".join(records), SIZE)


@given(
    st.lists(st.tuples(FEW, FEW, FEW, FEW, FEW, FEW).map(b"".join), max_size=60),
    st.integers(0, 4),
    st.sets(st.tuples(FEW, FEW).map(b"".join), min_size=1, max_size=5),
)
def test_records_that_have_one_of_some_values(
    records: list[bytes], offset: int, values: set[bytes]
) -> None:
    batch = of(records)
    mask = batch.having(offset, frozenset(values))
    expected = [n for n, one in enumerate(records) if one[offset : offset + 2] in values]
    assert list(places(mask, batch.count)) == expected
    assert how_many(mask) == len(expected)
    rest = list(places(batch.all ^ mask, batch.count))
    assert rest == [n for n in range(len(records)) if n not in expected]


@given(BATCHES, st.integers(0, 2), st.integers(0, 0xFFFFFFFF))
def test_numbers_that_are_greater(records: list[bytes], offset: int, number: int) -> None:
    numbers = [int.from_bytes(one[offset : offset + 4], sys.byteorder) for one in records]
    for than in (number, *numbers[:3]):
        mask = of(records).above(offset, 4, than)
        assert list(places(mask, len(records))) == [n for n, v in enumerate(numbers) if v > than]


@given(BATCHES, st.integers(0, 5), st.integers(1, 255))
def test_bits_of_a_byte(records: list[bytes], offset: int, bits: int) -> None:
    mask = of(records).masked(offset, bits)
    found = list(places(mask, len(records)))
    assert found == [n for n, one in enumerate(records) if one[offset] & bits]
