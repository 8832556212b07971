"""How a live session with a program in a node pod is framed: the contract of both its ends.

exec has three streams and no more, its v4 protocol cannot say that stdin has ended
(kubectl_ebpfnet/cluster/exec/protocol.py), and whether a lost client closes stdin is the container
runtime's affair. So stdin and stderr carry frames; stdout is the program's own, to the byte.

    kind (1 byte)  length (4 bytes, big-endian)  payload

To the program: DATA is its stdin, END the end of that, STOP asks it to end, ALIVE says that the
client is there. From it: TEXT is its stderr, PCAP what it captured, TAKEN (4 bytes, big-endian) how
many bytes of DATA it has read since the last one, ALIVE that the node is there. The client never
has more than WINDOW bytes of DATA on the way, so that what follows a blocked stdin is still read.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.errors import ParseError

GREETING = b"ebpfnet-frames 1\n"
"""The first bytes of stderr; a stderr that begins otherwise is an error in words."""
DATA, END, STOP, ALIVE = b"d", b"e", b"s", b"a"
TEXT, PCAP, TAKEN = b"t", b"p", b"k"
KINDS = frozenset((DATA, END, STOP, ALIVE, TEXT, PCAP, TAKEN))

WINDOW = 4 << 20
LONGEST = 1 << 20
"""Bytes of a payload."""
ALIVE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""After so many seconds without a frame the node ends the program: its client is gone."""
PCAP_FD = 100
"""The program's file descriptor for PCAP, which it opens as /proc/self/fd/100."""
OPTION = "--stdin-frames"

_HEADER = 5


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame; `payload` has LONGEST bytes at most."""
    return kind + len(payload).to_bytes(4, "big") + payload


def taken_frame(size: int) -> bytes:
    """Return a TAKEN frame for `size` bytes of DATA."""
    return frame(TAKEN, size.to_bytes(4, "big"))


class FrameReader:
    """Cuts a stream into frames, as its pieces come."""

    def __init__(self, source: str) -> None:
        """Start with an empty buffer; `source` names the stream in errors."""
        self._source = source
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take the next piece; yield (kind, payload) of each frame that is complete.

        Raises:
            ParseError: the bytes are not frames.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER:
                kind = bytes(self._buffer[at : at + 1])
                size = int.from_bytes(self._buffer[at + 1 : at + _HEADER], "big")
                if kind not in KINDS or size > LONGEST:
                    raise ParseError(self._source, 0, f"no frame begins with {kind!r}")
                end = at + _HEADER + size
                if len(self._buffer) < end:
                    return
                payload = bytes(self._buffer[at + _HEADER : end])
                at = end
                yield kind, payload
        finally:
            del self._buffer[:at]

    @property
    def rest(self) -> bytes:
        """The bytes of the last, incomplete frame."""
        return bytes(self._buffer)
