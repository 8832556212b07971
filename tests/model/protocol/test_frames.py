"""Frames of a live session: each is read as it was written, in whatever pieces it comes."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.protocol.frames import (
    LONGEST,
    PACKETS,
    PROGRAM,
    SESSION,
    Frame,
    FrameReader,
    Kind,
    frame,
    window_frame,
    window_size,
)

TRAILING = b"d\1\0\0\0\5half"
TABLE = [
    (frame(Kind.DATA, PROGRAM, b"\0bytes\n"), b"d\1\0\0\0\7\0bytes\n"),
    (frame(Kind.DATA, PACKETS, b""), b"d\2\0\0\0\0"),
    (frame(Kind.STDERR, PROGRAM, b"why\n"), b"t\1\0\0\0\4why\n"),
    (window_frame(PROGRAM, 1 << 18), b"w\1\0\0\0\4\0\4\0\0"),
    (frame(Kind.ALIVE), b"a\0\0\0\0\0"),
    (frame(Kind.END, PROGRAM), b"e\1\0\0\0\0"),
    (frame(Kind.END, SESSION, b"gone"), b"e\0\0\0\0\4gone"),
    (frame(Kind.STOP), b"s\0\0\0\0\0"),
]
"""(a frame as it is made, its bytes)"""


def read(*pieces: bytes) -> tuple[list[Frame], bytes]:
    """(frames, the rest) of these pieces."""
    reader = FrameReader("test")
    return [each for piece in pieces for each in reader.feed(piece)], reader.rest


@pytest.mark.parametrize(("made", "data"), TABLE)
def test_bytes_of_each_kind(made: bytes, data: bytes) -> None:
    assert made == data
    expected = [Frame(data[0], data[1], data[6:])]
    assert Kind(expected[0].kind)
    assert read(data) == (expected, b"")
    assert read(*(bytes((byte,)) for byte in data)) == (expected, b"")
    assert read(data + TRAILING) == (expected, TRAILING)
    assert read(data + data) == (expected * 2, b"")
    assert read(data[:-1])[0] == []


def test_the_table_has_every_kind() -> None:
    assert {data[0] for _, data in TABLE} == set(Kind)


def test_a_kind_of_a_newer_version_is_passed_on() -> None:
    assert read(b"\xfe\xff\0\0\0\1x" + frame(Kind.ALIVE)) == (
        [Frame(0xFE, 0xFF, b"x"), Frame(Kind.ALIVE, SESSION, b"")],
        b"",
    )


def test_a_payload_is_bounded() -> None:
    longest = frame(Kind.DATA, PROGRAM, bytes(LONGEST))
    assert read(longest)[0] == [Frame(Kind.DATA, PROGRAM, bytes(LONGEST))]
    with pytest.raises(ParseError, match="test: no frame begins with"):
        read(b"d\1" + (LONGEST + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "text",
    [b"Traceback (most recent call last):\n", b"GET / HTTP/1.1\r\n", b"\t\t\t\t\t\t", b"\xff" * 6],
)
def test_text_is_no_frame_and_stays_as_it_is(text: bytes) -> None:
    reader = FrameReader("test")
    cut = reader.feed(frame(Kind.ALIVE) + text)
    assert next(cut) == Frame(Kind.ALIVE, SESSION, b"")
    with pytest.raises(ParseError, match="no frame begins with"):
        next(cut)
    assert reader.rest == text


@pytest.mark.parametrize("payload", [b"", b"123", b"12345", bytes(LONGEST)])
def test_a_window_has_four_bytes(payload: bytes) -> None:
    assert window_size(b"\xff\xff\xff\xff") == 0xFFFFFFFF
    with pytest.raises(ParseError, match="a WINDOW frame: it has"):
        window_size(payload)


frames = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, 255), st.binary(max_size=100))
)


@given(sent=frames, cuts=st.lists(st.integers(0, 2000)))
def test_frames_in_any_pieces(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame(Kind(each.kind), each.stream, each.payload) for each in sent)
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(marks)]
    assert read(*pieces) == (sent, b"")


@given(pieces=st.lists(st.binary(max_size=40)))
def test_any_bytes_are_frames_or_a_parse_error(pieces: list[bytes]) -> None:
    reader, size = FrameReader("test"), 0
    with suppress(ParseError):
        for piece in pieces:
            size += sum(6 + len(each.payload) for each in reader.feed(piece))
        assert size + len(reader.rest) == len(b"".join(pieces))
