"""Generic netlink, and attributes that are read in place.

    genlmsghdr (command, version, reserved) · attributes (length, type, value, padded to 4 bytes)

A family's number is given out when its module is loaded: `nlctrl` tells it by name.

Sources: Linux include/uapi/linux/genetlink.h and netlink.h.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator

from pyroute2.netlink import NETLINK_GENERIC, NLM_F_DUMP

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node.netlink.transport import answers

_CONTROLLER, _GET_FAMILY = 0x10, 3  # GENL_ID_CTRL, CTRL_CMD_GETFAMILY
_FAMILY_ID, _FAMILY_NAME = 1, 2  # CTRL_ATTR_*
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: an attribute's type without its two flags
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = struct.Struct("=BBxx")


def family(name: str) -> int:
    """Return the number of a family.

    Raises:
        Unsupported: the kernel has no such family, or its module is not loaded.
        KernelError: the kernel refused.
    """
    what = f"ask for {name}"
    body = message(_GET_FAMILY, attribute(_FAMILY_NAME, name.encode() + b"\0"))
    try:
        for data, start, end in answers(NETLINK_GENERIC, _CONTROLLER, 0, body, what):
            found = dict(attributes(data, start + _GENERIC.size, end))
            return int.from_bytes(found[_FAMILY_ID], sys.byteorder)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    raise Unsupported(f"{what}: this kernel has no {name}, or it is not loaded", errno.ENOENT)


def dump(number: int, body: bytes, what: str) -> Iterator[bytes]:
    """Yield the attributes of each answer to a question for everything.

    Args:
        number: of the family.
        body: of `message`.
        what: the attempt, for the error.

    Raises:
        KernelError: as transport.answers.
    """
    for data, start, end in answers(NETLINK_GENERIC, number, NLM_F_DUMP, body, what):
        yield data[start + _GENERIC.size : end]


def message(command: int, *parts: bytes, version: int = 1) -> bytes:
    """Return a question: its header and attributes, without an nlmsghdr."""
    return _GENERIC.pack(command, version) + b"".join(parts)


def attribute(type: int, value: bytes) -> bytes:
    """Return an attribute."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), type) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each attribute of `data[start:end]`; a broken one ends them."""
    end = len(data) if end is None else end
    while start + _ATTRIBUTE.size <= end:
        length, type = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > end:
            return
        yield type & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
