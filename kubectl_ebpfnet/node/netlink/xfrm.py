"""The states and policies of the kernel's IPsec, by XFRM netlink, without any key.

    XFRM_MSG_NEWSA: struct xfrm_usersa_info · attributes
    XFRM_MSG_NEWPOLICY: struct xfrm_userpolicy_info · attributes

The kernel sends the keys of each state along with the rest: they are attributes that are skipped
by their number, and stay in the buffer of one read.

Source: Linux include/uapi/linux/xfrm.h, net/xfrm/xfrm_user.c (dump_one_state).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from pyroute2.netlink import NLM_F_DUMP

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.encryption import XfrmPolicy, XfrmState
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.generic import attributes
from kubectl_ebpfnet.node.netlink.transport import answers

_SOCKETS = Path("/proc/thread-self/net/netlink")
_NETLINK_XFRM, _GET_STATE = 6, 0x12  # XFRM_MSG_GETSA
# struct xfrm_usersa_info: selector, id (address, SPI, protocol), source, limits, what passed
# (bytes, packets, times), stats (replay window, replays, failed checks), sequence, request id,
# family, mode
_STATE = struct.Struct("=56x16sIB3x16s64x8xQ16x8xI4x4xHB9x")
_MARK = 21  # XFRMA_MARK
_MARK_AND_MASK = struct.Struct("=II")
_GET_POLICY = 0x15  # XFRM_MSG_GETPOLICY
# struct xfrm_userpolicy_info: selector (destination, source, ports and their masks, family, lengths
# of both prefixes, protocol, ifindex, uid), limits, what passed, priority, index, direction, action
_POLICY = struct.Struct("=16s16s2xH2xHHBBB3xiI64x32xI4xBB6x")
_TEMPLATES = 5  # XFRMA_TMPL
# struct xfrm_user_tmpl: id (address, SPI, protocol), family, source, request id, mode, share,
# optional, algorithms
_TEMPLATE = struct.Struct("=16s8xH2x16x4xBxBx12x")
_DIRECTIONS = ("in", "out", "fwd")
_PROTOCOLS = {50: "esp", 51: "ah", 108: "comp"}
_MODES = ("transport", "tunnel", "ro", "in_trigger", "beet")


def states(request: NodeRequest) -> Iterator[XfrmState]:  # noqa: ARG001
    """Yield the states of this network namespace; none where the kernel has no IPsec.

    Raises:
        KernelError: EPERM without CAP_NET_ADMIN.
    """
    if not _is_loaded():
        return
    for data, start, end in answers(_NETLINK_XFRM, _GET_STATE, NLM_F_DUMP, b"", "read IPsec"):
        yield _state(data, start, end)


def policies(request: NodeRequest) -> Iterator[XfrmPolicy]:  # noqa: ARG001
    """Yield the policies of this network namespace but those of single sockets, as `states`."""
    if not _is_loaded():
        return
    for data, start, end in answers(_NETLINK_XFRM, _GET_POLICY, NLM_F_DUMP, b"", "read IPsec"):
        found = _policy(data, start, end)
        if found is not None:
            yield found


def _policy(data: bytes, start: int, end: int) -> XfrmPolicy | None:
    (
        destination, source, port_mask, source_port_mask, family, length, source_length, protocol,
        index, user, priority, direction, action,
    ) = _POLICY.unpack_from(data, start)  # fmt: skip
    if direction >= len(_DIRECTIONS):
        return None
    mark, mask, ends = 0, 0, []
    for type, value in attributes(data, start + _POLICY.size, end):
        if type == _MARK:
            mark, mask = _MARK_AND_MASK.unpack(value)
        if type == _TEMPLATES:
            for at in range(0, len(value) - _TEMPLATE.size + 1, _TEMPLATE.size):
                far, of, _, optional = _TEMPLATE.unpack_from(value, at)
                if not optional and any(far):
                    ends.append(_address(far, of))
    return XfrmPolicy(
        source=_prefix(source, source_length, family),
        destination=_prefix(destination, length, family),
        direction=_DIRECTIONS[direction],
        action="block" if action else "allow",
        priority=priority,
        ends=tuple(ends),
        mark=mark,
        mark_mask=mask,
        narrowed=bool(port_mask or source_port_mask or protocol or index or user),
    )


def _prefix(raw: bytes, length: int, family: int) -> Network:
    return ip_network((_address(raw, family), length), strict=False)


def _is_loaded() -> bool:
    """Tell whether the kernel itself has a socket of this family: to open one loads the module."""
    try:
        rows = [line.split() for line in _SOCKETS.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise KernelError(f"read {_SOCKETS}: {error.strerror}", error.errno or 0) from None
    return any(row[1:3] == [str(_NETLINK_XFRM), "0"] for row in rows)


def _state(data: bytes, start: int, end: int) -> XfrmState:
    destination, spi, protocol, source, packets, failed, family, mode = _STATE.unpack_from(
        data, start
    )
    mark, mask = 0, 0
    for type, value in attributes(data, start + _STATE.size, end):
        if type == _MARK:
            mark, mask = _MARK_AND_MASK.unpack(value)
    return XfrmState(
        source=_address(source, family),
        destination=_address(destination, family),
        protocol=_PROTOCOLS.get(protocol, str(protocol)),
        spi=socket.ntohl(spi),
        mode=_MODES[mode] if mode < len(_MODES) else str(mode),
        mark=mark,
        mark_mask=mask,
        packets=packets,
        failed=failed,
    )


def _address(raw: bytes, family: int) -> Address:
    return ip_address(raw[:4] if family == socket.AF_INET else raw)
