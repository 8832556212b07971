"""What the kernel refuses, or says is not whole, by a socket that is played."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg
from pyroute2.netlink.rtnl import RTM_GETLINK

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import conntrack, rtnetlink, transport

MULTI, INTERRUPTED, DONE, ERROR, A_LINK = 0x2, 0x10, 3, 2, 16
TLVS = 0x200  # NLM_F_ACK_TLVS
Play = Callable[..., "Played"]


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def link(index: int, flags: int = MULTI) -> bytes:
    return message(A_LINK, struct.pack("=BxHiII", 0, 1, index, 0, 0), flags)


def code(number: int) -> bytes:
    return struct.pack("=i", -number)


WHOLE = [link(1), link(2) + message(DONE, code(0))]
IN_A_ROW = [link(1), link(3, MULTI | INTERRUPTED), WHOLE[1]]
AT_THE_END = [link(1), message(DONE, code(0), MULTI | INTERRUPTED)]


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

    def setsockopt(self, *words: int) -> None:
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
        monkeypatch.setattr(transport.socket, "socket", played)
        return played

    return start


def rows() -> list[int]:
    return [link["index"] for link in rtnetlink.dump(RTM_GETLINK, "list rows")]


@pytest.mark.parametrize("broken", [IN_A_ROW, AT_THE_END])
def test_a_dump_that_was_interrupted_is_asked_again(play: Play, broken: list[bytes]) -> None:
    played = play(broken, broken, WHOLE)
    assert rows() == [1, 2]
    assert played.asked == 3


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_busy_kernel_is_asked_again(play: Play, number: int) -> None:
    played = play([message(ERROR, code(number))], OSError(number, "played"), WHOLE)
    assert rows() == [1, 2]
    assert played.asked == 3


def test_a_table_that_never_stands_still_is_no_answer(play: Play) -> None:
    played = play(*[IN_A_ROW] * 20)
    with pytest.raises(KernelError, match="list rows: the table changed while it was read"):
        rows()
    assert played.asked == rtnetlink.ATTEMPTS


def test_a_refusal_is_not_asked_again(play: Play) -> None:
    played = play([message(ERROR, code(errno.EPERM))])
    with pytest.raises(KernelError, match="not permitted"):
        rows()
    assert played.asked == 1


def test_a_stream_that_was_interrupted_is_never_taken_as_whole(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "_must_be_loaded", lambda: None)
    ends = {"attrs": NFCTAttrTuple(2, "10.0.0.1", "10.0.0.2", 17, 1, 1).attrs()}
    row = nfct_msg()
    row.update(nfgen_family=2, attrs=[("CTA_TUPLE_ORIG", ends), ("CTA_TUPLE_REPLY", ends)])
    row.encode()
    entry = bytes(row.data[16:])
    play([message(0x100, entry), message(DONE, code(0), MULTI | INTERRUPTED)])
    found = conntrack.entries(NodeRequest(1, ("ebpfnet-node", "conntrack")))
    assert next(iter(found)).original.protocol == socket.IPPROTO_UDP
    with pytest.raises(KernelError, match="the table changed while it was read"):
        next(iter(found))


def test_a_kernel_without_the_family_has_no_entries(play: Play) -> None:
    play([message(ERROR, code(errno.EOPNOTSUPP))])
    assert rows() == []


@pytest.mark.parametrize("echoed", [b"", bytes(20)])
def test_the_kernels_words_are_the_reason(play: Play, echoed: bytes) -> None:
    refused = struct.pack("=IHHII", 16 + len(echoed), 18, 0, 1, 0) + echoed
    words = struct.pack("=HH", 10, 1) + b"Wrong\0\0\0"
    play([message(ERROR, code(errno.EINVAL) + refused + words, TLVS)])
    with pytest.raises(KernelError) as told:
        rows()
    assert (told.value.message, told.value.errno) == ("list rows: Wrong", errno.EINVAL)


def test_a_message_that_was_cut_is_no_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(WHOLE)
    monkeypatch.setattr(played, "recvmsg", lambda _: (b"", [], socket.MSG_TRUNC, None))
    with pytest.raises(KernelError, match="list rows: a message of more than"):
        rows()
