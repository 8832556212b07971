"""The search through long outputs equals the obvious loop, however the bytes come in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.model.evidence import (
    API,
    PIECE,
    Bundle,
    InMemory,
    Record,
    agent_place,
    bundle_of,
    pod_place,
)
from kubectl_ebpfnet.model.matching import matching_lines


@dataclass(frozen=True)
class Pieces:
    """A fake output that comes in exactly these pieces."""

    pieces: tuple[bytes, ...]

    def read(self) -> bytes:
        return b"".join(self.pieces)

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces


class CountedPieces(Pieces):
    """The same, with the number of newlines of each piece."""

    def counted_chunks(self) -> Iterator[tuple[bytes, int]]:
        return ((piece, piece.count(b"\n")) for piece in self.pieces)


def naive(data: bytes, needles: list[bytes]) -> list[tuple[int, bytes]]:
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if not needles or any(needle in line for needle in needles)
    ]


# Few letters and many newlines, so that needles match and seams fall in awkward places.
texts = st.binary(max_size=60).map(lambda raw: bytes(b"ab\n\n."[byte % 5] for byte in raw))


@given(
    pieces=st.lists(texts, max_size=8).map(tuple),
    needles=st.lists(st.sampled_from([b"a", b"b", b"ab", b"aa", b"a.b", b"zz", b""]), max_size=3),
)
def test_equals_the_naive_loop_for_any_split(
    pieces: tuple[bytes, ...], needles: list[bytes]
) -> None:
    output = Pieces(pieces)
    expected = naive(output.read(), needles)
    assert list(matching_lines(output, needles)) == expected
    assert list(matching_lines(CountedPieces(pieces), needles)) == expected


def test_one_line_in_many_pieces_is_joined_once() -> None:
    output = Pieces((b"x" * 10_000,) * 200 + (b"needle\nend",))
    ((number, line),) = matching_lines(output, [b"needle"])
    assert number == 1
    assert len(line) == 2_000_006


def test_held_output_comes_in_bounded_pieces() -> None:
    data = b"0123456789abcdef\n" * (PIECE // 8)
    pieces = list(InMemory(data).chunks())
    assert len(pieces) > 1
    assert max(map(len, pieces)) == PIECE
    assert b"".join(pieces) == data
    assert len(list(matching_lines(InMemory(data), [b"abc"]))) == PIECE // 8


def test_a_later_record_replaces_an_earlier_one() -> None:
    place = pod_place("default", "client")
    bundle = bundle_of(
        [
            Record(0, place, ("ip", "a"), 1),
            Record(0, API, ("get", "pods"), 0),
            Record(0, place, ("ip", "a"), 0),
        ]
    )
    assert [record.number for record in bundle.records] == [1, 2, 3]
    found = bundle.record(place, ["ip", "a"])
    assert found is not None
    assert found.number == 3
    assert bundle.record(agent_place("n"), ["ip", "a"]) is None
    assert bundle.numbered(2).place == API
    with pytest.raises(IndexError):
        bundle.numbered(0)
    assert Bundle(()).records == ()


def test_why_not_says_what_went_wrong_and_nothing_else() -> None:
    place = pod_place("default", "client")
    assert Record(1, place, ("ip",), 0).why_not() == ""
    assert Record(1, place, ("ip",), None, error="no shell").why_not() == "no shell"
    assert Record(1, place, ("ip",), 127, stderr=b"x\nnot found\n").why_not() == (
        "exit code 127: not found"
    )


def test_a_table_that_changed_while_it_was_read_is_no_answer() -> None:
    """iproute2 6.1, `ip route show table all` beside routes that come and go: exit code 0."""
    told = b"Dump was interrupted and may be inconsistent.\n"
    record = Record(1, pod_place("default", "client"), ("ip", "route"), 0, stderr=told)
    assert not record.ok
    assert record.why_not() == "the table changed while it was read: ask again"
