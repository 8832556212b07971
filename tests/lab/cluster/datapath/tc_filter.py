"""A clsact filter by netlink, named as Cilium names its own; `tc` would add to the name.

Source: include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h, net/sched/cls_bpf.c; Cilium
pkg/datapath/loader/tc.go (priority 1, handle 1, direct action, all protocols).
"""

from __future__ import annotations

import os
import socket
import struct

_NEWTFILTER = 44
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_KIND, _OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ALL_PROTOCOLS = 3
_PRIORITY = _HANDLE = 1


def add(ifindex: int, direction: str, program: int, name: str) -> None:
    """Attach a loaded program to a device that has a clsact qdisc.

    Args:
        direction: `ingress` or `egress`.
        program: its file descriptor.

    Raises:
        OSError: what the kernel said.
    """
    options = (
        _attribute(_BPF_FD, struct.pack("=I", program))
        + _attribute(_BPF_NAME, name.encode() + b"\0")
        + _attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
    )
    info = _PRIORITY << 16 | socket.htons(_ALL_PROTOCOLS)
    body = (
        struct.pack("=BxxxiIII", 0, ifindex, _HANDLE, _PARENTS[direction], info)
        + _attribute(_KIND, b"bpf\0")
        + _attribute(_OPTIONS, options)
    )
    head = struct.pack("=IHHII", 16 + len(body), _NEWTFILTER, _REQUEST | _ACK | _CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(head + body)
        answer = netlink.recv(65536)
    # The acknowledgement is an error message whose number is 0.
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def _attribute(kind: int, value: bytes) -> bytes:
    """Length, kind, value, filled up to four bytes."""
    filled = value.ljust((len(value) + 3) & ~3, b"\0")
    return struct.pack("=HH", 4 + len(value), kind) + filled
