"""Netlink messages by struct: for dumps that are long, where pyroute2 decodes more than is wanted.

    nlmsghdr (length, type, flags, sequence, port) · the family's header · attributes
    attribute: length with this head, type, payload, padding to four bytes; all in host order

Sources: netlink(7), Linux include/uapi/linux/netlink.h. An answer is handed on as it comes off the
socket, so a dump of any length needs the memory of one read.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

from kubectl_ebpfnet.errors import KernelError, Unsupported

# linux/netlink.h; Python's socket module has names for few of them
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
REQUEST, DUMP = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: an attribute's type without its two flags
HEADER_BYTES = 16
_READ_BYTES = 65536  # the kernel fills at most 32 KB of a dump at once

ATTRIBUTE = struct.Struct("=HH")
_HEADER = struct.Struct("=IHHII")
_ERRNO = struct.Struct("=i")


def attribute(type: int, payload: bytes, *, nested: bool = False) -> bytes:
    """One attribute with its padding; `nested` says that its payload is attributes."""
    length = ATTRIBUTE.size + len(payload)
    head = ATTRIBUTE.pack(length, type | (_NESTED if nested else 0))
    return head + payload + b"\0" * (-length % 4)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The attributes that lie side by side in a part of a message.

    Yields:
        (type, start, end) of each payload in `data`.
    """
    while start + 4 <= end:
        length, type = ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield type & TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def answers(
    family: int,
    type: int,
    flags: int,
    body: bytes,
    what: str,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[tuple[bytes, int, int]]:
    """Ask the kernel one thing, in the network namespace of the calling thread.

    Args:
        family: NETLINK_ROUTE or NETLINK_NETFILTER.
        type: of the message.
        flags: DUMP, or 0 for a question with one answer.
        body: what follows the nlmsghdr.
        what: for the error: what was tried, e.g. "read the conntrack table".
        wanted: asked of each read, some 100 answers: whether one of them can be of use.

    Yields:
        (data, start, end) of each answer, past its nlmsghdr.

    Raises:
        Unsupported: the kernel has no such netlink family.
        KernelError: it refused, with its errno.
    """
    try:
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    except OSError as error:
        code = error.errno or 0
        if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise Unsupported(f"{what}: this kernel has no netlink for it", code) from None
        raise KernelError(f"{what}: {error.strerror}", code) from None
    with asking:
        asking.bind((0, 0))
        asking.send(_HEADER.pack(HEADER_BYTES + len(body), type, REQUEST | flags, 1, 0) + body)
        while True:
            data, _, read_flags, _ = asking.recvmsg(_READ_BYTES)
            if read_flags & socket.MSG_TRUNC:
                raise KernelError(f"{what}: a message of more than {_READ_BYTES} bytes")
            useful = wanted is None or wanted(data)
            at = 0
            while at + HEADER_BYTES <= len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                if kind in (_ERROR, _DONE):
                    _complain(data, at, length, what)
                    return
                if useful:
                    yield data, at + HEADER_BYTES, at + length
                at += (length + 3) & ~3
            if not flags & DUMP:
                return


def _complain(data: bytes, at: int, length: int, what: str) -> None:
    """Raise what an NLMSG_ERROR, or the end of a dump, says; nothing when it says 0."""
    if length < HEADER_BYTES + _ERRNO.size:
        return
    code = -_ERRNO.unpack_from(data, at + HEADER_BYTES)[0]
    if code <= 0:
        return
    hint = "CAP_NET_ADMIN allows it" if code in (errno.EPERM, errno.EACCES) else ""
    raise KernelError(f"{what}: {os.strerror(code)}", code, hint=hint)
