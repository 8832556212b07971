"""Lines of outputs: searched piece by piece, however long they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.model.evidence import Counted, Output


def text_lines(text: str) -> list[str]:
    """Return the lines of an output, whose numbers begin with 1; the last is "" after a newline.

    Only a newline ends a line, as in matching_lines, so that numbers are the ones of an editor and
    of `sed -n`; a carriage return before it is dropped.
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


def matching_lines(output: Output, needles: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that contain any of the needles, with their 1-based numbers.

    Works piece by piece, so memory stays flat however long the output is, and searches the needles
    in whole pieces, so that a line without a match costs no object.

    Args:
        output: the bytes to search.
        needles: the strings to find, without newlines; every line matches when empty.

    Yields:
        (line number, line without its newline), in order, each line once.
    """
    wanted = () if b"" in needles else tuple(needles)
    number = 1
    rest: list[bytes] = []  # the start of a line whose end has not come yet
    for chunk, newlines in _counted(output):
        end = chunk.rfind(b"\n") + 1
        if not end:
            if chunk:
                rest.append(chunk)
            continue
        start = 0
        if rest:
            # Only the line that runs over the seam is copied, never a whole chunk: copying costs
            # as much as searching.
            start = chunk.find(b"\n") + 1
            rest.append(chunk[:start])
            seam = b"".join(rest)
            yield from _lines_of_piece(seam, 0, len(seam), number, wanted)
            number += 1
            rest = []
        if start < end:
            yield from _lines_of_piece(chunk, start, end, number, wanted)
            if newlines < 0:
                number += chunk.count(b"\n", start, end)
            else:
                number += newlines - (1 if start else 0)
        if end < len(chunk):
            rest.append(chunk[end:])
    if rest:
        rest.append(b"\n")
        seam = b"".join(rest)
        yield from _lines_of_piece(seam, 0, len(seam), number, wanted)


def _counted(output: Output) -> Iterator[tuple[bytes, int]]:
    """Return the chunks, each with its number of newlines, -1 where that is not known."""
    if isinstance(output, Counted):
        return output.counted_chunks()
    return ((chunk, -1) for chunk in output.chunks())


def _lines_of_piece(
    piece: bytes, begin: int, end: int, first: int, needles: Sequence[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yield the matching lines of piece[begin:end], which holds whole lines from number `first`."""
    if not needles:
        start, number = begin, first
        while start < end:
            stop = piece.find(b"\n", start)
            yield number, piece[start:stop]
            start, number = stop + 1, number + 1
        return
    starts: set[int] = set()
    for needle in needles:
        at = piece.find(needle, begin, end)
        while at >= 0:
            starts.add(piece.rfind(b"\n", begin, at) + 1 or begin)
            at = piece.find(needle, piece.find(b"\n", at) + 1, end)
    number, counted = first, begin
    for start in sorted(starts):
        number += piece.count(b"\n", counted, start)
        counted = start
        yield number, piece[start : piece.find(b"\n", start)]
