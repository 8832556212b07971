"""Compare a batch of packed entries column by column: a mask tells which of them fit.

A table has half a million entries, and looking at one in Python takes a microsecond. So a column of
a batch, one byte of each entry, is compared at once: by a table of 256 bytes (bytes.translate), and
as one large integer. In such a mask an entry is a byte, 0xFF where it fits, so masks are joined
by & and |. A byte of 4096 entries takes 5 us.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from math import prod

_FITS, _NOT = b"\xff", b"\0"


class Columns:
    """Packed records of one size, side by side: the keys of a batch, or its values."""

    def __init__(self, data: bytes, size: int) -> None:
        """
        Args:
            data: the records.
            size: of one, in bytes.
        """
        self.data, self.size = data, size
        self.count = len(data) // size
        self.all = int.from_bytes(_FITS * self.count, "little")
        self._found: dict[tuple[int, frozenset[bytes]], int] = {}
        self._columns: dict[int, bytes] = {}

    def record(self, number: int) -> bytes:
        """Return a record by its number."""
        return self.data[number * self.size : (number + 1) * self.size]

    def having(self, offset: int, values: frozenset[bytes]) -> int:
        """Return the mask of the records that have one of some values at an offset.

        Args:
            offset: in the record.
            values: of one length.
        """
        key = (offset, values)
        if key not in self._found:
            self._found[key] = self._having(offset, values)
        return self._found[key]

    def _having(self, offset: int, values: frozenset[bytes]) -> int:
        mask, columns = self.all, [frozenset(column) for column in zip(*values, strict=True)]
        for at, allowed in enumerate(columns, offset):
            mask &= self._by(at, _table(allowed))
            if not mask:
                return 0
        if prod(map(len, columns)) == len(values):
            return mask
        fits = bytearray(self.count)  # bytes of several values were mixed
        width = len(columns)
        for number in places(mask, self.count):
            at = number * self.size + offset
            if self.data[at : at + width] in values:
                fits[number] = 0xFF
        return int.from_bytes(fits, "little")

    def masked(self, offset: int, bits: int) -> int:
        """Return the mask of the records that have any of some bits in the byte at an offset."""
        return self._by(offset, _having_bits(bits))

    def above(self, offset: int, width: int, number: int) -> int:
        """Return the mask of the records whose number is greater than another.

        Args:
            offset, width: of the number, in the host's order.
            number: to compare with.
        """
        parts = number.to_bytes(width, "little")
        above, same = 0, self.all
        for at in reversed(range(width)):  # from the byte that counts most
            where = offset + (at if sys.byteorder == "little" else width - 1 - at)
            if self._column(where) == parts[at : at + 1] * self.count:
                continue  # the first bytes of a time are mostly the same
            above |= same & self._by(where, _greater(parts[at]))
            same &= self._by(where, _table(frozenset((parts[at],))))
            if not same:
                break
        return above

    def _by(self, offset: int, table: bytes) -> int:
        return int.from_bytes(self._column(offset).translate(table), "little")

    def _column(self, offset: int) -> bytes:
        if offset not in self._columns:
            self._columns[offset] = self.data[offset :: self.size]
        return self._columns[offset]


def places(mask: int, count: int) -> Iterator[int]:
    """Yield the numbers of the records that fit.

    Args:
        mask: of a batch.
        count: of its records.
    """
    fits = mask.to_bytes(count, "little")
    at = fits.find(_FITS)
    while at >= 0:
        yield at
        at = fits.find(_FITS, at + 1)


def how_many(mask: int) -> int:
    """Return how many records fit."""
    return mask.bit_count() >> 3


@lru_cache(4096)
def _table(allowed: frozenset[int]) -> bytes:
    return b"".join(_FITS if byte in allowed else _NOT for byte in range(256))


@lru_cache(256)
def _having_bits(bits: int) -> bytes:
    return _table(frozenset(byte for byte in range(256) if byte & bits))


@lru_cache(256)
def _greater(byte: int) -> bytes:
    return _NOT * (byte + 1) + _FITS * (255 - byte)
