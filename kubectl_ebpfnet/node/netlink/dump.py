"""rtnetlink dumps as bytes, and iproute2's names of numbers.

Sources: rtnetlink(7), netlink(7); Linux include/uapi/linux/netlink.h and rtnetlink.h (numbers below
are theirs), net/netlink/af_netlink.c (NLM_F_DUMP_INTR); iproute2's lib/rt_names.c.

pyroute2 opens the socket, numbers the requests, joins the parts of a dump and reports errors. Its
decoder takes 35 to 200 us a message and drops the values of unknown attributes, so this module
takes the bytes, in 5 to 20 us. Its synchronous classes start the event loop for each message; here
`asyncio.run` runs the asynchronous class once a question. The calling thread opens the socket, so
it belongs to the thread's network namespace.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.node.netlink.message import AGAIN, ATTEMPTS, Attributes, attributes_of
from kubectl_ebpfnet.node.netlink.message import changed as table_changed

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
GETLINK, GETADDR, GETROUTE, GETNEIGH, GETRULE = 18, 22, 26, 30, 34
_REQUEST, _ACK, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
# Bytes before the attributes, by type of the answer: struct ifinfomsg, ifaddrmsg, rtmsg, ndmsg,
# fib_rule_hdr.
_HEAD_BYTES = {16: 16, 20: 8, 24: 12, 28: 12, 32: 12}
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
# The kernel is built or booted without a family.
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel.

    Attributes:
        head: the fixed structure of the message type, e.g. struct rtmsg.
        attributes: by number; of several with one number the last.
    """

    head: bytes
    attributes: Attributes


class _Packet(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A message for pyroute2's socket, whose body is bytes in both directions."""

    def encode(self) -> None:
        header, body = self["header"], self["body"]
        self.data = bytearray(
            _HEADER.pack(
                _HEADER.size + len(body), header["type"], header["flags"],
                header["sequence_number"], header["pid"],
            )
            + body
        )  # fmt: skip

    def decode(self) -> None:
        length, kind, flags, number, port = _HEADER.unpack_from(self.data, self.offset)
        self["header"] = {
            "length": length, "type": kind, "flags": flags, "sequence_number": number,
            "pid": port, "error": None,
        }  # fmt: skip
        self["body"] = bytes(self.data[self.offset + _HEADER.size : self.offset + length])


def dump(question: int, head: bytes, extra: bytes = b"", what: str = "") -> list[Message]:
    """Return every entry of a table, in the kernel's order.

    A dump during which the table changed is tried again, up to eight times.

    Args:
        question: GETLINK and the like.
        head: the fixed structure of the question.
        extra: attributes of the question.
        what: the table, for the error.

    Returns:
        The messages; [] where the kernel lacks this family.

    Raises:
        KernelError: the kernel refused, or the table changed each time: an entry may be missing or
            repeated.
    """
    flags = _REQUEST | _DUMP
    problem = table_changed(f"list {what}")
    for _ in range(ATTEMPTS):
        try:
            messages, interrupted = asyncio.run(_ask(question, flags, head + extra))
        except NetlinkError as error:
            if error.code in _NO_FAMILY:
                return []
            problem = _refused(what, error)
            if error.code not in AGAIN:
                raise problem from None
            continue
        if not interrupted:
            return messages
        problem = table_changed(f"list {what}")
    raise problem


def get(question: int, head: bytes, extra: bytes = b"") -> Message | int:
    """Return one entry, or the errno of the kernel's refusal.

    Args:
        question: GETROUTE and the like.
        head: the fixed structure of the question.
        extra: attributes of the question.
    """
    try:
        messages, _ = asyncio.run(_ask(question, _REQUEST | _ACK, head + extra))
    except NetlinkError as error:
        return int(error.code)
    return messages[0] if messages else errno.ENOENT


def _refused(what: str, error: Any) -> KernelError:
    return KernelError(f"list {what}: {os.strerror(error.code)}", error.code)


async def _ask(question: int, flags: int, body: bytes) -> tuple[list[Message], bool]:
    packet = _Packet()
    packet["body"] = body
    interrupted = False

    def note_interruption(message: Any) -> None:  # also for the last message, which is not returned
        nonlocal interrupted
        interrupted = interrupted or bool(message["header"]["flags"] & _DUMP_INTERRUPTED)

    async with AsyncIPRoute() as sock:
        sock.register_policy(dict.fromkeys(_HEAD_BYTES, _Packet))
        answers = await sock.nlm_request(packet, question, flags, callback=note_interruption)
        return [_message(answer) async for answer in answers], interrupted


def _message(packet: Any) -> Message:
    body, size = packet["body"], _HEAD_BYTES[packet["header"]["type"]]
    return Message(body[:size], attributes_of(body, size))


def address(value: bytes) -> Address:
    """Return an IPv4 or IPv6 address, by its length."""
    return IPv4Address(value) if len(value) == 4 else IPv6Address(value)


def network(value: bytes | None, length: int, family: int) -> Network:
    """Return a prefix.

    Args:
        value: the address; None for length 0, which messages leave out.
        length: of the prefix.
        family: INET or INET6.
    """
    if family == INET:
        return IPv4Network((value or bytes(4), length), strict=False)
    return IPv6Network((value or bytes(16), length), strict=False)


# --- names ----------------------------------------------------------------------------------------
_NAMED: dict[str, dict[int, str]] = {
    "rt_tables": {0: "unspec", 253: "default", 254: "main", 255: "local"},
    "rt_scopes": {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"},
}
_FOLDERS = tuple(Path(folder) for folder in ("/usr/lib", "/usr/share", "/etc"))
_TYPES = (
    "none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
    "prohibit", "throw", "nat", "xresolve",
)  # fmt: skip


@functools.lru_cache(maxsize=1024)
def type_name(number: int) -> str:
    """Return iproute2's name of RTN_*, or the number."""
    return _TYPES[number] if number < len(_TYPES) else str(number)


def names(kind: str) -> dict[int, str]:
    """Return iproute2's names of numbers, with the names in this image's files.

    Args:
        of: `rt_tables` or `rt_scopes`.
    """
    found = dict(_NAMED[kind])
    for folder in _FOLDERS:
        base = folder / "iproute2"
        for file in (base / kind, *sorted((base / f"{kind}.d").glob("*.conf"))):
            found.update(_file(file))
    return found


def _file(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) == 2:
            try:
                yield int(words[0], 0), words[1]
            except ValueError:
                continue


def device_names() -> dict[int, str]:
    """Return names of this namespace's devices by ifindex, in the kernel's order."""
    # Names are bytes to the kernel; other bytes than UTF-8 must not break the answer.
    return {i: os.fsencode(n).decode("utf-8", "replace") for i, n in socket.if_nameindex()}


def device(devices: dict[int, str], index: int) -> str:
    """Return the name of a device; `ifN`, as iproute2 does, for a device that is gone."""
    return devices.get(index) or f"if{index}"
