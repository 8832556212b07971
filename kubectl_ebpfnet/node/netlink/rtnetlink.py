"""rtnetlink by pyroute2's messages: questions, dumps and changes.

A message is a class of pyroute2 (`ifinfmsg`, `rtmsg`, …): `message["index"]` is a field of its
fixed structure, `message.get_attr("IFLA_MTU")` an attribute, None when it is missing. Attributes
are decoded when they are read.

pyroute2 0.9.7 lacks attributes, and cuts link-layer addresses to six bytes: `_ROWS` and `_AS_BYTES`
mend its tables. Rows that a later version has stay its own.

Sources: rtnetlink(7); Linux include/uapi/linux/{rtnetlink,if_link,fib_rules,pkt_cls}.h.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyroute2.netlink import NETLINK_ROUTE, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfbase
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg_base
from pyroute2.netlink.rtnl.tcmsg import sched_bpf, tcmsg

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink.transport import AGAIN, HEADER, answers, changed

ATTEMPTS = 8
NEW = NLM_F_CREATE | NLM_F_EXCL
# The kernel is built or booted without a family.
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPFNOSUPPORT})
Attributes = Sequence[tuple[str, Any]]

# (message, number of the first row, rows): attributes that follow pyroute2's last one.
_ROWS: tuple[tuple[Any, int, tuple[tuple[str, str], ...]], ...] = (
    (tcmsg, 9, (("TCA_PAD", "hex"), ("TCA_DUMP_INVISIBLE", "flag"), ("TCA_CHAIN", "uint32"))),
    (
        sched_bpf.options, 9,
        (("TCA_BPF_FLAGS_GEN", "uint32"), ("TCA_BPF_TAG", "hex"), ("TCA_BPF_ID", "uint32")),
    ),
    (
        rtmsg_base, 24,
        (
            ("RTA_PAD", "hex"), ("RTA_UID", "uint32"), ("RTA_TTL_PROPAGATE", "uint8"),
            ("RTA_IP_PROTO", "uint8"), ("RTA_SPORT", "be16"), ("RTA_DPORT", "be16"),
        ),
    ),
    (
        fibmsg, 25,
        (
            ("FRA_DSCP", "hex"), ("FRA_FLOWLABEL", "hex"), ("FRA_FLOWLABEL_MASK", "hex"),
            ("FRA_SPORT_MASK", "hex"), ("FRA_DPORT_MASK", "hex"), ("FRA_DSCP_MASK", "hex"),
        ),
    ),
)  # fmt: skip
# Addresses of any length, and statistics of which older and newer kernels send fewer and more.
_AS_BYTES = {
    ifinfbase: {"IFLA_ADDRESS": "hex", "IFLA_STATS64": "cdata"},
    ndmsg: {"NDA_LLADDR": "hex"},
}


def _mend_tables() -> None:
    """Mend pyroute2's tables, before it compiles them for the first message."""
    for message, first, rows in _ROWS:
        numbered = isinstance(message.nla_map[0][0], int)
        last = message.nla_map[-1][0] if numbered else len(message.nla_map) - 1
        new = [(first + n, *row) for n, row in enumerate(rows) if first + n > last]
        message.nla_map = (*message.nla_map, *(row if numbered else row[1:] for row in new))
    for message, types in _AS_BYTES.items():
        message.nla_map = tuple((name, types.get(name, kind)) for name, kind in message.nla_map)


_mend_tables()


class Change(NamedTuple):
    """One change to the kernel's tables.

    Attributes:
        type: of the message, e.g. RTM_NEWROUTE.
        flags: NEW, or 0 for a change of an existing object.
        what: the attempt, for the error, e.g. "add the route 192.0.2.0/24".
        fields: of the message's fixed structure.
        attributes: names and values.
    """

    type: int
    flags: int
    what: str
    fields: dict[str, int]
    attributes: Attributes = ()


def change(changes: Sequence[Change]) -> None:
    """Change rtnetlink's tables in the network namespace of the calling thread.

    The kernel makes every change that it does not refuse, also after a refused one.

    Raises:
        KernelError: the first refused change, with its errno and the kernel's reason in words if
            there is one.
    """
    refused = []
    for type, flags, what, fields, attributes in changes:
        body = _encoded(type, fields, attributes)
        try:
            list(answers(NETLINK_ROUTE, type, NLM_F_ACK | flags, body, what))
        except KernelError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def dump(type: int, what: str, attributes: Attributes = (), **fields: int) -> list[Any]:
    """Return every entry of a table, in the kernel's order.

    A dump during which the table changed is tried again, up to eight times.

    Args:
        type: RTM_GETLINK and the like.
        what: the attempt, for the error, e.g. "list links".
        attributes: of the question.
        **fields: of the question's fixed structure.

    Returns:
        The messages; [] where the kernel lacks this family.

    Raises:
        KernelError: the kernel refused, or the table changed each time: an entry may be missing or
            repeated.
    """
    body = _encoded(type, fields, attributes)
    problem = changed(what)
    for _ in range(ATTEMPTS):
        try:
            return [_decoded(*a) for a in answers(NETLINK_ROUTE, type, NLM_F_DUMP, body, what)]
        except KernelError as error:
            if error.errno in _NO_FAMILY:
                return []
            if error.errno not in AGAIN:
                raise
            problem = error
    raise problem


def get(type: int, what: str, attributes: Attributes = (), **fields: int) -> Any:
    """Return one entry.

    Args:
        type: RTM_GETROUTE and the like.
        what: the attempt, for the error.
        attributes: of the question.
        **fields: of the question's fixed structure.

    Raises:
        KernelError: the kernel refused; ENOENT when it has none.
    """
    for answer in answers(NETLINK_ROUTE, type, 0, _encoded(type, fields, attributes), what):
        return _decoded(*answer)
    raise KernelError(f"{what}: no answer", errno.ENOENT)


def text(value: str | bytes | None) -> str:
    """Return an attribute that is a string; "" when it is missing. pyroute2 leaves bytes that are
    no UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _encoded(type: int, fields: dict[str, int], attributes: Attributes) -> bytes:
    """Return a message without its nlmsghdr."""
    message = MarshalRtnl.msg_map[type]()
    message.update(fields)
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data[HEADER.size :])


def _decoded(data: bytes, start: int, _end: int) -> Any:
    """Return a message of pyroute2."""
    header = start - HEADER.size
    message = MarshalRtnl.msg_map[HEADER.unpack_from(data, header)[1]](data, offset=header)
    message.decode()
    return message
