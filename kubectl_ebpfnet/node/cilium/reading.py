"""Read maps in batches of packed entries: whole, only their beginning, or both halves at once.

A table of half a million entries takes the kernel 0.15 s, most of which it waits for memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.bpf.syscall import HASH, LRU_HASH, LRU_PERCPU_HASH
from kubectl_ebpfnet.node.cilium.columns import Columns

Batch = tuple[Columns, Columns]
"""Keys and values of some entries of a map."""
ENOUGH = 8192
"""Entries that tell how many the others are: right within some 3 %."""
_BATCH = 4096
_BUCKETS = frozenset({HASH, LRU_HASH, LRU_PERCPU_HASH})


def times_read(table: Map) -> float:
    """Return how many times as many entries a map has as were read of it, by the buckets that held
    them; 1.0 where that cannot be told before its end.

    Source: Linux kernel/bpf/hashtab.c: a batch begins where the one before ended, at a bucket, and
    `n_buckets` is max_entries rounded up to a power of two.
    """
    buckets = _buckets(table)
    return buckets / table.next_bucket if 0 < table.next_bucket < buckets else 1.0


def _buckets(table: Map) -> int:
    """Return how many buckets a hash map has, 0 for a map of another type."""
    if table.info.type not in _BUCKETS:
        return 0
    return 1 << (table.info.max_entries - 1).bit_length()


def beginning(table: Map) -> tuple[list[Batch], float]:
    """Return the first entries of a map, in batches, and how many times as many it has.

    Raises:
        KernelError: the map cannot be read.
    """
    found: list[Batch] = []
    count = 0
    for keys, values in batches(table):
        found.append((keys, values))
        count += keys.count
        if count >= ENOUGH and (times := times_read(table)) > 1:
            return found, times
    return found, 1.0


def batches(table: Map) -> Iterator[Batch]:
    """Yield the keys and values of a map, in batches.

    Raises:
        KernelError: the map cannot be read.
    """
    key_size, value_size = table.info.key_size, table.value_bytes
    try:
        yield from _from(table)
        return
    except Unsupported:
        pass  # before Linux 5.6; raised at the first batch
    entries = table.items()
    while some := list(islice(entries, _BATCH)):
        yield (
            Columns(b"".join(key for key, _ in some), key_size),
            Columns(b"".join(value for _, value in some), value_size),
        )


def _from(table: Map, bucket: int = 0) -> Iterator[Batch]:
    """Yield the entries of a hash map from a bucket on; of any map from its first. Raises
    Unsupported at the first batch."""
    key_size, value_size = table.info.key_size, table.value_bytes
    for count, keys, values in table.batches(_BATCH, bucket):
        yield (
            Columns(bytes(keys[: count * key_size]), key_size),
            Columns(bytes(values[: count * value_size]), value_size),
        )


def in_halves(table: Map) -> Iterator[Batch]:
    """Yield what `batches` does, in no order: of a hash map both halves are read at the same time,
    which takes the kernel most of the time that it takes.

    Raises:
        KernelError: the map cannot be read.
    """
    middle = _buckets(table) // 2
    with Map(os.dup(table.fd)) as other:
        above = _from(other, middle)
        try:
            first = next(above, None) if middle else None
        except Unsupported:
            middle = 0
        if not middle:
            yield from batches(table)
            return
        below = _below(table, middle, first)
        if first is not None:
            yield first
        if times_read(other) > 1:
            yield from _at_once(below, above)
        else:  # the other half is read
            yield from below


def _below(table: Map, middle: int, above: Batch | None) -> Iterator[Batch]:
    """Yield the entries of the buckets before the middle. The last batch goes beyond it: what the
    first one from there on has is left out."""
    for keys, values in _from(table):
        if table.next_bucket <= middle or above is None:
            yield keys, values
        else:
            yield _without(keys, values, above[0])
        if table.next_bucket >= middle:
            return


def _without(keys: Columns, values: Columns, others: Columns) -> Batch:
    """Return the entries of a batch whose keys are not among others."""
    known = {others.record(number) for number in range(others.count)}
    left = [number for number in range(keys.count) if keys.record(number) not in known]
    return (
        Columns(b"".join(map(keys.record, left)), keys.size),
        Columns(b"".join(map(values.record, left)), values.size),
    )


def _at_once(*parts: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches of several iterators in turns, while a thread of each prepares the next one."""
    with ThreadPoolExecutor(len(parts)) as pool:
        coming = deque((part, pool.submit(next, part, None)) for part in parts)
        while coming:
            part, next_one = coming.popleft()
            batch = next_one.result()
            if batch is not None:
                coming.append((part, pool.submit(next, part, None)))
                yield batch
