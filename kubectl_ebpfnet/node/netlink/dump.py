"""rtnetlink: questions to the kernel, its messages as bytes, and iproute2's names of numbers.

Sources: rtnetlink(7), netlink(7); Linux include/uapi/linux/netlink.h and rtnetlink.h (numbers below
are theirs), net/netlink/af_netlink.c (NLM_F_DUMP_INTR); iproute2's lib/rt_names.c.

pyroute2 opens the socket, numbers the requests, joins the parts of a dump and tells errors. Its
own decoder takes 35 to 200 us a message and drops the values of attributes that it does not know,
so the messages are taken as bytes here, which takes 5 to 20 us. Its synchronous classes start the
event loop once a message; the asynchronous one is run by one `asyncio.run` a question. The socket
is opened by the calling thread, so it is one of the network namespace that the thread is in.
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
        head: the fixed structure of its kind, e.g. struct rtmsg.
        attributes: what follows it, by number; the last of several with one number.
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
    """Every entry of a table, in the kernel's order.

    A dump during which the table changed is asked again, up to eight times.

    Args:
        question: GETLINK and the like.
        head: the fixed structure of the question.
        extra: attributes of the question.
        what: for the error: what was asked for.

    Returns:
        The messages; [] where the kernel is without this family.

    Raises:
        KernelError: the kernel refused, or the table changed each time: an entry may be missing or
            stand twice in what was read.
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
    """The one entry that is asked for, or the errno with which the kernel refused it."""
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

    def notice(message: Any) -> None:  # also the last one, which is not handed out
        nonlocal interrupted
        interrupted = interrupted or bool(message["header"]["flags"] & _DUMP_INTERRUPTED)

    async with AsyncIPRoute() as sock:
        sock.register_policy(dict.fromkeys(_HEAD_BYTES, _Packet))
        answers = await sock.nlm_request(packet, question, flags, callback=notice)
        return [_message(one) async for one in answers], interrupted


def _message(packet: Any) -> Message:
    body, size = packet["body"], _HEAD_BYTES[packet["header"]["type"]]
    return Message(body[:size], attributes_of(body, size))


def address(value: bytes) -> Address:
    """An address of its family, by its length."""
    return IPv4Address(value) if len(value) == 4 else IPv6Address(value)


def network(value: bytes | None, length: int, family: int) -> Network:
    """A prefix; None is that of length 0, which messages leave out."""
    if family == INET:
        return IPv4Network((value or bytes(4), length), strict=False)
    return IPv6Network((value or bytes(16), length), strict=False)


# --- names ----------------------------------------------------------------------------------------
_NAMED: dict[str, dict[int, str]] = {
    "rt_tables": {0: "unspec", 253: "default", 254: "main", 255: "local"},
    "rt_scopes": {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"},
}
_FOLDERS = tuple(Path(one) for one in ("/usr/lib", "/usr/share", "/etc"))
_TYPES = (
    "none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
    "prohibit", "throw", "nat", "xresolve",
)  # fmt: skip


@functools.lru_cache(maxsize=1024)
def type_name(number: int) -> str:
    """RTN_* in iproute2's words; the number where it has none."""
    return _TYPES[number] if number < len(_TYPES) else str(number)


def names(of: str) -> dict[int, str]:
    """iproute2's names of numbers, those of this image's own files included.

    Args:
        of: `rt_tables` or `rt_scopes`.
    """
    found = dict(_NAMED[of])
    for folder in _FOLDERS:
        base = folder / "iproute2"
        for file in (base / of, *sorted((base / f"{of}.d").glob("*.conf"))):
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
    """Names of this namespace's devices by ifindex, in the kernel's order."""
    # Names are bytes to the kernel; what is no UTF-8 must not break the answer.
    return {i: os.fsencode(n).decode("utf-8", "replace") for i, n in socket.if_nameindex()}


def device(devices: dict[int, str], index: int) -> str:
    """The name of a device; `ifN`, as iproute2 says, for one that has gone meanwhile."""
    return devices.get(index) or f"if{index}"
