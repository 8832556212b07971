"""Dumps that the kernel says are not whole, by a socket that is played."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import conntrack, dump
from kubectl_ebpfnet.node.netlink import message as nlmsg

MULTI, INTERRUPTED, DONE, ERROR, A_ROW = 0x2, 0x10, 3, 2, 16
Play = Callable[..., "Played"]


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def code(number: int) -> bytes:
    return struct.pack("=i", -number)


WHOLE = [message(A_ROW, b"row1"), message(A_ROW, b"row2") + message(DONE, code(0))]
IN_A_ROW = [message(A_ROW, b"row1"), message(A_ROW, b"row3", MULTI | INTERRUPTED), WHOLE[1]]
AT_THE_END = [message(A_ROW, b"row1"), message(DONE, code(0), MULTI | INTERRUPTED)]


class Played:
    """The netlink sockets of this process: each gives one dump's reads."""

    def __init__(self, dumps: list[list[bytes] | OSError]) -> None:
        self.asked = 0
        self._dumps = iter(dumps)
        self._reads: Iterator[bytes] = iter(())

    def __call__(self, *_: int) -> Played:
        return self

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bind(self, address: tuple[int, int]) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.asked += 1
        self._now = next(self._dumps)
        self._reads = iter(self._now if isinstance(self._now, list) else ())

    def recvmsg(self, size: int) -> tuple[bytes, list[Any], int, None]:
        if isinstance(self._now, OSError):
            raise self._now
        return next(self._reads), [], 0, None


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    def start(*dumps: list[bytes] | OSError) -> Played:
        played = Played(list(dumps))
        monkeypatch.setattr(nlmsg.socket, "socket", played)
        return played

    return start


def rows() -> list[bytes]:
    return [data[start:end] for data, start, end in nlmsg.dump(18, b"", "list rows")]


@pytest.mark.parametrize("broken", [IN_A_ROW, AT_THE_END])
def test_a_dump_that_was_interrupted_is_asked_again(play: Play, broken: list[bytes]) -> None:
    played = play(broken, broken, WHOLE)
    assert rows() == [b"row1", b"row2"]
    assert played.asked == 3


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_busy_kernel_is_asked_again(play: Play, number: int) -> None:
    played = play([message(ERROR, code(number))], OSError(number, "played"), WHOLE)
    assert rows() == [b"row1", b"row2"]
    assert played.asked == 3


def test_a_table_that_never_stands_still_is_no_answer(play: Play) -> None:
    played = play(*[IN_A_ROW] * 20)
    with pytest.raises(KernelError, match="list rows: the table changed while it was read"):
        rows()
    assert played.asked == nlmsg.ATTEMPTS


def test_a_refusal_is_not_asked_again(play: Play) -> None:
    played = play([message(ERROR, code(errno.EPERM))])
    with pytest.raises(KernelError, match="not permitted"):
        rows()
    assert played.asked == 1


def test_a_stream_that_was_interrupted_is_never_taken_as_whole(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "_must_be_loaded", lambda: None)
    tuple_ = nlmsg.attribute(1, b"\x0a\0\0\x01") + nlmsg.attribute(2, b"\x0a\0\0\x02")
    proto = nlmsg.attribute(1, b"\x11") + b"".join(nlmsg.attribute(n, b"\0\x01") for n in (2, 3))
    both = nlmsg.attribute(1, tuple_, nested=True) + nlmsg.attribute(2, proto, nested=True)
    entry = b"\x02\0\0\0" + b"".join(nlmsg.attribute(n, both, nested=True) for n in (1, 2))
    play([message(0x100, entry), message(DONE, code(0), MULTI | INTERRUPTED)])
    found = conntrack.entries(NodeRequest(1, ("ebpfnet-node", "conntrack")))
    assert next(iter(found)).original.protocol == socket.IPPROTO_UDP
    with pytest.raises(KernelError, match="the table changed while it was read"):
        next(iter(found))


def test_pyroute2_is_asked_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = []

    async def ask(*_: object) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(dump, "_ask", ask)
    one = dump.Message(b"", {})
    answers[:] = [([one], True), NetlinkError(errno.EBUSY), ([one, one], False)]
    assert dump.dump(dump.GETLINK, b"", what="links") == [one, one]
    answers[:] = [([one], True)] * 20
    with pytest.raises(KernelError, match="list links: the table changed while it was read"):
        dump.dump(dump.GETLINK, b"", what="links")
    assert len(answers) == 20 - nlmsg.ATTEMPTS
    answers[:] = [NetlinkError(errno.EPERM)] * 2
    with pytest.raises(KernelError, match="not permitted"):
        dump.dump(dump.GETLINK, b"", what="links")
    assert len(answers) == 1
