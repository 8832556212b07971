"""Ask the kernel one thing by netlink: a socket, its answers, its refusal.

    nlmsghdr (length, type, flags, sequence, port) · the family's header · attributes

pyroute2 encodes the questions and decodes rtnetlink's answers (rtnetlink.py). Its sockets are not
used, since they

* take a turn of an event loop for each message: the tc filters of 250 devices take 91 ms, here 46;
* do not look at NLM_F_DUMP_INTR: the table changed between two parts of a dump, so an entry may be
  missing or repeated;
* return what was read as if it were whole when recv(2) fails, and then leave the loop open.

Answers are yielded as they come off the socket, so a dump of any length needs the memory of one
read. The socket belongs to the network namespace of the calling thread, and ends with the question.

Sources: netlink(7), Linux include/uapi/linux/netlink.h, net/netlink/af_netlink.c.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

from pyroute2.netlink import (
    NETLINK_EXT_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    nlmsgerr,
)

from kubectl_ebpfnet.errors import KernelError, Unsupported

AGAIN = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY})
"""Errors after which a dump is tried again; EINTR also stands for NLM_F_DUMP_INTR."""
HEADER = struct.Struct("=IHHII")
_READ_BYTES = 65536  # the kernel fills at most 32 KB of a dump at once

Answer = tuple[bytes, int, int]
"""(data, start, end): a message, without its nlmsghdr, is data[start:end]."""


def answers(
    family: int,
    type: int,
    flags: int,
    body: bytes,
    what: str,
    is_useful: Callable[[bytes], bool] | None = None,
) -> Iterator[Answer]:
    """Ask the kernel one thing, in the network namespace of the calling thread.

    Args:
        family: NETLINK_ROUTE or NETLINK_NETFILTER.
        type: of the message.
        flags: NLM_F_DUMP; 0 for a question with one answer; with NLM_F_ACK for a change.
        body: the bytes after the nlmsghdr.
        what: the attempt, for the error, e.g. "read the conntrack table".
        is_useful: tells whether the bytes of a read, some 100 answers, may have a useful one.

    Yields:
        Each answer.

    Raises:
        Unsupported: the kernel has no such netlink family.
        KernelError: a refusal, with its errno and the kernel's reason in words if there is one.
            EINTR after the answers of a dump: the table changed meanwhile.
    """
    interrupted = False
    is_dump = flags & NLM_F_DUMP == NLM_F_DUMP
    with _socket(family, what) as sock:
        sock.send(HEADER.pack(HEADER.size + len(body), type, NLM_F_REQUEST | flags, 1, 0) + body)
        while True:
            data = _read(sock, what)
            useful = is_useful is None or is_useful(data)
            at = 0
            while at + HEADER.size <= len(data):
                length, kind, message_flags, _, _ = HEADER.unpack_from(data, at)
                interrupted = interrupted or bool(is_dump and message_flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_error(data, at, length, what)
                    if interrupted:
                        raise changed(what)
                    return
                if useful:
                    yield data, at + HEADER.size, at + length
                at += (length + 3) & ~3
            if not is_dump:
                return


def changed(what: str) -> KernelError:
    """Return the error for a dump during which the table changed."""
    problem = "the table changed while it was read: entries may be missing or stand twice"
    return KernelError(f"{what}: {problem}", errno.EINTR)


def _socket(family: int, what: str) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    except OSError as error:
        code = error.errno or 0
        if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise Unsupported(f"{what}: this kernel has no netlink for it", code) from None
        raise KernelError(f"{what}: {error.strerror}", code) from None
    sock.bind((0, 0))
    sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return sock


def _read(sock: socket.socket, what: str) -> bytes:
    try:
        data, _, flags, _ = sock.recvmsg(_READ_BYTES)
    except OSError as error:
        raise KernelError(f"{what}: {error.strerror}", error.errno or 0) from None
    if flags & socket.MSG_TRUNC:
        raise KernelError(f"{what}: a message of more than {_READ_BYTES} bytes")
    return data


def _raise_error(data: bytes, at: int, length: int, what: str) -> None:
    """Raise the error of an NLMSG_ERROR, or of the end of a dump; nothing for 0."""
    if length < HEADER.size + 4:
        return
    message = nlmsgerr(data, offset=at)
    message.decode()
    code = -message["error"]
    if code <= 0:
        return
    reason = message.get_attr("NLMSGERR_ATTR_MSG") or os.strerror(code)
    hint = "CAP_NET_ADMIN allows it" if code in (errno.EPERM, errno.EACCES) else ""
    raise KernelError(f"{what}: {reason}", code, hint=hint)
