"""Netlink messages by struct, where pyroute2 decodes too much or starts too slowly.

    nlmsghdr (length, type, flags, sequence, port) · the family's header · attributes
    attribute: length with its head, type, payload, padding to four bytes; all in host order

Sources: netlink(7), Linux include/uapi/linux/netlink.h, net/netlink/af_netlink.c (NLM_F_DUMP_INTR:
the table changed between two parts of a dump, so an entry may be missing or repeated). Answers are
yielded as they come off the socket, so a dump of any length needs the memory of one read. Changes
go in a batch, one send(2) for all of them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kubectl_ebpfnet.errors import KernelError, Unsupported

# linux/netlink.h; Python's socket module has names for few of them
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
REQUEST, DUMP = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
NEW = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_ACK, _ACK_TLVS, _CAPPED = 0x4, 0x200, 0x100  # NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_ERROR, _DONE = 2, 3
ATTEMPTS = 8
AGAIN = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY})
"""Errors after which a dump is tried again; EINTR also stands for NLM_F_DUMP_INTR."""
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_REASON = 1  # NLMSGERR_ATTR_MSG
_NESTED = 0x8000
TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: an attribute's type without its two flags
HEADER_BYTES = 16
_AT_ONCE = 64  # changes whose acknowledgements fit into a socket's buffer
_READ_BYTES = 65536  # the kernel fills at most 32 KB of a dump at once

ATTRIBUTE = struct.Struct("=HH")
_HEADER = struct.Struct("=IHHII")
_ERRNO = struct.Struct("=i")

Attributes = dict[int, bytes]


class Change(NamedTuple):
    """One change to the kernel's tables.

    Attributes:
        type: of the message, e.g. RTM_NEWROUTE.
        flags: NEW, or 0 for a change of an existing object.
        body: the bytes after the nlmsghdr.
        what: the attempt, for the error, e.g. "add the route 192.0.2.0/24".
    """

    type: int
    flags: int
    body: bytes
    what: str


def attribute(type: int, payload: bytes, *, nested: bool = False) -> bytes:
    """Return one attribute with its padding.

    Args:
        type: number of the attribute.
        payload: its value.
        nested: the payload is attributes.
    """
    length = ATTRIBUTE.size + len(payload)
    head = ATTRIBUTE.pack(length, type | (_NESTED if nested else 0))
    return head + payload + b"\0" * (-length % 4)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the attributes in a part of a message.

    Args:
        data: the message.
        start, end: of the part.

    Yields:
        (type, start, end) of each payload in `data`.
    """
    while start + 4 <= end:
        length, type = ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield type & TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def attributes_of(data: bytes, start: int = 0) -> Attributes:
    """Return attributes by their number; `data` may be the value of a nested attribute."""
    return {kind: data[at:end] for kind, at, end in attributes(data, start, len(data))}


def number(attributes: Attributes, kind: int) -> int | None:
    """Return an attribute that is a number in the host's byte order; None when it is missing."""
    value = attributes.get(kind)
    return None if value is None else int.from_bytes(value, sys.byteorder)


def text(attributes: Attributes, kind: int) -> str:
    """Return an attribute that is a string; "" when it is missing."""
    return attributes.get(kind, b"").split(b"\0", 1)[0].decode("utf-8", "replace")


def change(changes: Sequence[Change]) -> None:
    """Change rtnetlink's tables in the network namespace of the calling thread.

    The kernel makes every change that it does not refuse, also after a refused one.

    Raises:
        KernelError: the first refused change, with its errno and the kernel's reason in words if
            there is one.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
        refused = [
            error
            for first in range(0, len(changes), _AT_ONCE)
            for error in _send_batch(sock, changes[first : first + _AT_ONCE])
        ]
    if refused:
        raise refused[0]


def _send_batch(sock: socket.socket, changes: Sequence[Change]) -> Iterator[KernelError]:
    """Send a batch of changes; yield an error for each refused one."""
    batch = b""
    for sequence, (type, flags, body, _) in enumerate(changes):
        size = HEADER_BYTES + len(body)
        head = _HEADER.pack(size, type, REQUEST | _ACK | flags, sequence, 0)
        batch += head + body + b"\0" * (-size % 4)
    sock.send(batch)
    unacknowledged = len(changes)
    while unacknowledged:
        data = sock.recv(_READ_BYTES)
        at = 0
        while at + HEADER_BYTES <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if kind == _ERROR:
                unacknowledged -= 1
                code = -_ERRNO.unpack_from(data, at + HEADER_BYTES)[0]
                if code:
                    reason = _reason(data[at : at + length], flags) or os.strerror(code)
                    hint = "CAP_NET_ADMIN allows it" if code == errno.EPERM else ""
                    yield KernelError(f"{changes[sequence].what}: {reason}", code, hint=hint)
            at += (length + 3) & ~3


def _reason(message: bytes, flags: int) -> str:
    """Return the kernel's words in an NLMSG_ERROR, after the header of the refused message."""
    if not flags & _ACK_TLVS:
        return ""
    about = HEADER_BYTES + _ERRNO.size
    size = HEADER_BYTES if flags & _CAPPED else _HEADER.unpack_from(message, about)[0]
    return text(attributes_of(message, about + ((size + 3) & ~3)), _REASON)


def dump(type: int, body: bytes, what: str) -> list[tuple[bytes, int, int]]:
    """Dump a table of rtnetlink, again if it changed meanwhile.

    Args:
        type: of the message.
        body: the bytes after the nlmsghdr.
        what: the attempt, for the error, e.g. "list devices".

    Returns:
        As `answers` yields.

    Raises:
        KernelError: the kernel refused, or the table changed each time: EINTR.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return list(answers(NETLINK_ROUTE, type, DUMP, body, what))
        except KernelError as error:
            if error.errno not in AGAIN or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def changed(what: str) -> KernelError:
    """Return the error for a dump during which the table changed."""
    problem = "the table changed while it was read: entries may be missing or stand twice"
    return KernelError(f"{what}: {problem}", errno.EINTR)


def answers(
    family: int,
    type: int,
    flags: int,
    body: bytes,
    what: str,
    is_useful: Callable[[bytes], bool] | None = None,
) -> Iterator[tuple[bytes, int, int]]:
    """Ask the kernel one thing, in the network namespace of the calling thread.

    Args:
        family: NETLINK_ROUTE or NETLINK_NETFILTER.
        type: of the message.
        flags: DUMP, or 0 for a question with one answer.
        body: the bytes after the nlmsghdr.
        what: the attempt, for the error, e.g. "read the conntrack table".
        is_useful: tells whether the bytes of a read, some 100 answers, may have a useful one.

    Yields:
        (data, start, end) of each answer, past its nlmsghdr.

    Raises:
        Unsupported: the kernel has no such netlink family.
        KernelError: a refusal, with its errno. EINTR after the answers of a dump: the table changed
            meanwhile (`dump` tries again).
    """
    interrupted = False
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    except OSError as error:
        code = error.errno or 0
        if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise Unsupported(f"{what}: this kernel has no netlink for it", code) from None
        raise KernelError(f"{what}: {error.strerror}", code) from None
    with sock:
        sock.bind((0, 0))
        sock.send(_HEADER.pack(HEADER_BYTES + len(body), type, REQUEST | flags, 1, 0) + body)
        while True:
            try:
                data, _, read_flags, _ = sock.recvmsg(_READ_BYTES)
            except OSError as error:
                raise KernelError(f"{what}: {error.strerror}", error.errno or 0) from None
            if read_flags & socket.MSG_TRUNC:
                raise KernelError(f"{what}: a message of more than {_READ_BYTES} bytes")
            useful = is_useful is None or is_useful(data)
            at = 0
            while at + HEADER_BYTES <= len(data):
                length, kind, message_flags, _, _ = _HEADER.unpack_from(data, at)
                interrupted = interrupted or bool(flags & DUMP and message_flags & _INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    _raise_error(data, at, length, what)
                    if interrupted:
                        raise changed(what)
                    return
                if useful:
                    yield data, at + HEADER_BYTES, at + length
                at += (length + 3) & ~3
            if not flags & DUMP:
                return


def _raise_error(data: bytes, at: int, length: int, what: str) -> None:
    """Raise the error of an NLMSG_ERROR, or of the end of a dump; nothing for 0."""
    if length < HEADER_BYTES + _ERRNO.size:
        return
    code = -_ERRNO.unpack_from(data, at + HEADER_BYTES)[0]
    if code <= 0:
        return
    hint = "CAP_NET_ADMIN allows it" if code in (errno.EPERM, errno.EACCES) else ""
    raise KernelError(f"{what}: {os.strerror(code)}", code, hint=hint)
