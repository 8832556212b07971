"""The two BPF programs: exactly one flow between the device and the private netns.

    device, ingress:     the flow, and ICMP errors about it ─▶ redirect to the private netns
                         ARP replies, neighbour advertisements, later fragments ─▶ both
                         all else ─▶ the next program
    veth, host's end:    the flow, ARP and neighbour requests ─▶ redirect to the device
                         all else ─▶ dropped: the private netns says nothing of its own

Between the two, the peer may have a stand-in address (`neutral`). Sources: include/uapi/linux/bpf.h
(struct __sk_buff, helpers), net/core/filter.c (skb_do_redirect), RFC 791, 792, 8200, 4443, 4861.
Frames are read by offsets from skb->data, which is the MAC header, or the IP header on devices that
have none. VLAN tags are not in the data at this point: the kernel has taken them off.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.node.kat import assembler as asm
from kubectl_ebpfnet.node.kat.assembler import EQ, FP, GT, LT, NE, R0, R6, R7, R8, R9, Assembly

NEXT, DROP = -1, 2  # TCX_NEXT, TCX_DROP; the same numbers as TC_ACT_UNSPEC and TC_ACT_SHOT
ETHERNET = 14

_PKT_TYPE, _MARK, _PROTOCOL, _VLAN_PRESENT, _VLAN_TCI = 4, 8, 16, 20, 24  # of struct __sk_buff
_HEADER, _BYTES, _INNER, _INNER_BYTES, _SCRATCH = -40, -48, -88, -96, -112  # on the stack
_EXTENSIONS = 4


@dataclass(frozen=True, slots=True)
class Flow:
    """What belongs to one netkat.

    Attributes:
        version: 4 or 6.
        protocol: 6 (TCP) or 17 (UDP).
        locals: the node's addresses, packed, that the private netns wears.
        ports: the first and the last local port.
        peer: its address, packed; None: anybody.
        peer_port: its port; 0: any.
        stand_in: what the private netns calls the peer; None: by its own address.
    """

    version: int
    protocol: int
    locals: tuple[bytes, ...]
    ports: tuple[int, int]
    peer: bytes | None = None
    peer_port: int = 0
    stand_in: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    """Where things are in the header of one IP version; offsets in bytes."""

    ether_type: bytes
    length: int
    source: int
    destination: int
    next_header: int
    icmp: int
    errors: tuple[int, ...]


_FORMS = {
    4: _Form(b"\x08\x00", 20, 12, 16, 9, 1, (3, 4, 11, 12)),
    6: _Form(b"\x86\xdd", 40, 8, 24, 6, 58, (1, 2, 3, 4)),
}
_ARP, _ARP_REPLY = b"\x08\x06", b"\x00\x02"
_SOLICITATION, _ADVERTISEMENT = 135, 136


def neutral(peer: bytes) -> bytes:
    """A stand-in for an address: out of 198.18.0.0/15 or 2001:2::/48, with the same checksum.

    Args:
        peer: packed, 4 or 16 bytes.

    Returns:
        An address, packed, whose 16-bit words have the peer's one's complement sum, so that it can
        be put in the peer's place without touching a checksum (RFC 6296); never the peer itself.
    """
    words = [int.from_bytes(peer[n : n + 2], "big") for n in range(0, len(peer), 2)]
    for head in ((0xC612,), (0xC613,)) if len(peer) == 4 else ((0x2001, 2, 0), (0x2001, 2, 0, 1)):
        rest = (sum(words) - sum(head)) % 0xFFFF
        found = [*head, *[0] * (len(words) - len(head) - 1), rest]
        if found != words:
            break
    return b"".join(word.to_bytes(2, "big") for word in found)


def to_private(flow: Flow, veth: int, *, frame: bytes = b"", helper: int) -> bytes:
    """The program at the device's ingress.

    Args:
        flow: what to catch.
        veth: ifindex of the veth's end in the host.
        frame: for devices without a MAC header, the 14 bytes to put before the packet.
        helper: assembler.REDIRECT, or REDIRECT_PEER (Linux 5.10), which spares a queue.
    """
    form, code = _FORMS[flow.version], Assembly()
    base = 0 if frame else ETHERNET
    _opening(code)
    code.load(asm.WORD, R0, R6, _PKT_TYPE)
    code.jump_if(NE, R0, 0, "next")  # promiscuous, broadcast, multicast
    code.load(asm.WORD, R0, R6, _VLAN_PRESENT)
    code.jump_if(EQ, R0, 0, "untagged")
    code.load(asm.WORD, R0, R6, _VLAN_TCI)
    code.mask(R0, 0xFFF)
    code.jump_if(NE, R0, 0, "next")  # a VLAN device's own; identifier 0 is a mere priority
    code.label("untagged")
    code.load(asm.WORD, R0, R6, _PROTOCOL)
    code.jump_if(EQ, R0, asm.native(_ARP), "arp")
    code.jump_if(NE, R0, asm.native(form.ether_type), "next")
    _load(code, base, _HEADER, form.length)
    _one_of(code, flow.locals, _HEADER + form.destination, "next")
    _to_transport(code, flow, base)

    code.label("transport")
    _address_is(code, flow.peer, _HEADER + form.source, "next")
    _load(code, _Behind(R7), _BYTES, 4)
    _port_is(code, flow.peer_port, _BYTES)
    _port_in(code, flow.ports, _BYTES + 2)
    _rewrite(code, flow.stand_in, base + form.source)
    code.jump("deliver")

    code.label("icmp")
    _load(code, _Behind(R7), _BYTES, 1)
    code.load(asm.BYTE, R0, FP, _BYTES)
    if flow.version == 6:
        code.jump_if(EQ, R0, _ADVERTISEMENT, "both")
    _error_about(code, flow, form)

    code.label("deliver")
    _deliver(code, veth, frame, helper)

    code.label("arp")
    if not frame and flow.version == 4:
        _load(code, base, _BYTES, 8)
        code.load(asm.HALF, R0, FP, _BYTES + 6)
        code.jump_if(EQ, R0, asm.native(_ARP_REPLY), "both")
    code.jump("next")
    code.label("fragment")
    if not frame:
        _address_is(code, flow.peer, _HEADER + form.source, "next")
        _rewrite(code, flow.stand_in, base + form.source)
        _clone(code, veth)
        _rewrite(code, flow.stand_in and flow.peer, base + form.source)
    code.jump("next")
    code.label("both")
    if not frame:
        _clone(code, veth)
    return _closing(code, NEXT)


def to_wire(flow: Flow, device: int, *, mark: int = 0, neighbours: bool = True) -> bytes:
    """The program at the ingress of the veth's end in the host.

    Args:
        flow: what may leave.
        device: ifindex of the real device.
        mark: for the packets, as SO_MARK would give them (socket(7)).
        neighbours: let ARP and neighbour solicitations out.
    """
    form, code = _FORMS[flow.version], Assembly()
    near = flow.stand_in or flow.peer
    _opening(code)
    code.load(asm.WORD, R0, R6, _PROTOCOL)
    if neighbours and flow.version == 4:
        code.jump_if(EQ, R0, asm.native(_ARP), "send")
    code.jump_if(NE, R0, asm.native(form.ether_type), "next")
    _load(code, ETHERNET, _HEADER, form.length)
    _one_of(code, flow.locals, _HEADER + form.source, "next")
    _to_transport(code, flow, ETHERNET)

    code.label("transport")
    _load(code, _Behind(R7), _BYTES, 4)
    _port_in(code, flow.ports, _BYTES)
    _port_is(code, flow.peer_port, _BYTES + 2)
    code.label("fragment")
    _address_is(code, near, _HEADER + form.destination, "next")
    _rewrite(code, flow.stand_in and flow.peer, ETHERNET + form.destination)
    code.jump("send")

    code.label("icmp")
    if neighbours and flow.version == 6:
        _load(code, _Behind(R7), _BYTES, 1)
        code.load(asm.BYTE, R0, FP, _BYTES)
        code.jump_if(EQ, R0, _SOLICITATION, "send")
    code.jump("next")

    code.label("send")
    if mark:
        code.set(R0, mark)
        code.store_register(asm.WORD, R6, _MARK, R0)
    _redirect(code, device, asm.REDIRECT)
    return _closing(code, DROP)


def _opening(code: Assembly) -> None:
    code.copy(R6, asm.R1)


def _closing(code: Assembly, verdict: int) -> bytes:
    code.label("next")
    code.give(verdict)
    return code.program()


@dataclass(frozen=True, slots=True)
class _Behind:
    """A place in the packet: so many bytes behind what a register says."""

    register: int
    beyond: int = 0


def _place(code: Assembly, where: int | _Behind) -> None:
    """R1 = the packet, R2 = the place in it."""
    code.copy(asm.R1, R6)
    if isinstance(where, _Behind):
        code.copy(asm.R2, where.register)
        code.add(asm.R2, where.beyond)
    else:
        code.set(asm.R2, where)


def _load(code: Assembly, where: int | _Behind, to: int, length: int) -> None:
    """Copy bytes of the packet to the stack."""
    _place(code, where)
    code.copy(asm.R3, FP)
    code.add(asm.R3, to)
    code.set(asm.R4, length)
    code.call(asm.SKB_LOAD_BYTES)
    code.jump_if(NE, R0, 0, "next")


def _one_of(code: Assembly, addresses: tuple[bytes, ...], at: int, otherwise: str) -> None:
    """Go on where the address on the stack is one of these, else jump."""
    found = code.fresh()
    for address in addresses:
        other = code.fresh()
        _address_is(code, address, at, other)
        code.jump(found)
        code.label(other)
    code.jump(otherwise)
    code.label(found)


def _address_is(code: Assembly, address: bytes | None, at: int, otherwise: str) -> None:
    for n in range(0, len(address or b""), 4):
        assert address is not None
        code.load(asm.WORD, R0, FP, at + n)
        code.jump_if(NE, R0, asm.native(address[n : n + 4]), otherwise)


def _port_is(code: Assembly, port: int, at: int) -> None:
    if port:
        code.load(asm.HALF, R0, FP, at)
        code.jump_if(NE, R0, asm.native(port.to_bytes(2, "big")), "next")


def _port_in(code: Assembly, ports: tuple[int, int], at: int) -> None:
    code.load(asm.HALF, R0, FP, at)
    code.host_order(R0, 16)
    code.jump_if(LT, R0, ports[0], "next")
    code.jump_if(GT, R0, ports[1], "next")


def _to_transport(code: Assembly, flow: Flow, base: int) -> None:
    """R7 = offset behind the IP header; then to transport, icmp, fragment or next."""
    if flow.version == 4:
        code.load(asm.HALF, R0, FP, _HEADER + 6)
        code.host_order(R0, 16)
        code.mask(R0, 0x1FFF)
        code.load(asm.BYTE, R8, FP, _HEADER + 9)
        code.jump_if(NE, R0, 0, "fragment")
        _header_length(code, R7, _HEADER)
        code.add(R7, base)
        code.jump_if(EQ, R8, flow.protocol, "transport")
        code.jump_if(EQ, R8, 1, "icmp")
        code.jump("next")
        return
    code.load(asm.BYTE, R8, FP, _HEADER + 6)
    code.set(R7, base + 40)
    for n in range(_EXTENSIONS):
        code.jump_if(EQ, R8, flow.protocol, "transport")
        code.jump_if(EQ, R8, 58, "icmp")
        code.jump_if(EQ, R8, 44, f"fragment header {n}")
        for kind in (0, 43, 60):  # hop-by-hop, routing, destination options
            code.jump_if(EQ, R8, kind, f"extension {n}")
        code.jump("next")
        code.label(f"fragment header {n}")
        _load(code, _Behind(R7), _BYTES, 4)
        code.load(asm.HALF, R0, FP, _BYTES + 2)
        code.host_order(R0, 16)
        code.mask(R0, 0xFFF8)
        code.jump_if(NE, R0, 0, "fragment")
        code.load(asm.BYTE, R8, FP, _BYTES)
        code.add(R7, 8)
        code.jump(f"after {n}")
        code.label(f"extension {n}")
        _load(code, _Behind(R7), _BYTES, 2)
        code.load(asm.BYTE, R8, FP, _BYTES)
        code.load(asm.BYTE, R0, FP, _BYTES + 1)
        code.add(R0, 1)
        code.shift_left(R0, 3)
        code.add_register(R7, R0)
        code.label(f"after {n}")
    code.jump_if(NE, R8, flow.protocol, "next")


def _header_length(code: Assembly, register: int, at: int) -> None:
    code.load(asm.BYTE, register, FP, at)
    code.mask(register, 0x0F)
    code.shift_left(register, 2)


def _error_about(code: Assembly, flow: Flow, form: _Form) -> None:
    """Go on where the ICMP message is an error that quotes a packet of the flow."""
    for kind in form.errors:
        code.jump_if(EQ, R0, kind, "error")
    code.jump("next")
    code.label("error")
    _load(code, _Behind(R7, 8), _INNER, form.length)
    _one_of(code, flow.locals, _INNER + form.source, "next")
    _address_is(code, flow.peer, _INNER + form.destination, "next")
    code.load(asm.BYTE, R0, FP, _INNER + form.next_header)
    code.jump_if(NE, R0, flow.protocol, "next")
    if flow.version == 4:
        code.load(asm.HALF, R0, FP, _INNER + 6)
        code.host_order(R0, 16)
        code.mask(R0, 0x1FFF)
        code.jump_if(NE, R0, 0, "next")
        _header_length(code, R9, _INNER)
    else:
        code.set(R9, form.length)
    code.add_register(R9, R7)
    _load(code, _Behind(R9, 8), _INNER_BYTES, 4)
    _port_in(code, flow.ports, _INNER_BYTES)
    _port_is(code, flow.peer_port, _INNER_BYTES + 2)
    _rewrite(code, flow.stand_in, _Behind(R7, 8 + form.destination))


def _rewrite(code: Assembly, data: bytes | None, where: int | _Behind) -> None:
    """Write an address (or a MAC header) into the packet; nothing for None."""
    if data is None:
        return
    code.store_bytes(_SCRATCH, data)
    _place(code, where)
    code.copy(asm.R3, FP)
    code.add(asm.R3, _SCRATCH)
    code.set(asm.R4, len(data))
    code.set(asm.R5, 0)
    code.call(asm.SKB_STORE_BYTES)
    code.jump_if(NE, R0, 0, "next")


def _clone(code: Assembly, veth: int) -> None:
    code.copy(asm.R1, R6)
    code.set(asm.R2, veth)
    code.set(asm.R3, 0)
    code.call(asm.CLONE_REDIRECT)


def _deliver(code: Assembly, veth: int, frame: bytes, helper: int) -> None:
    if frame:
        code.copy(asm.R1, R6)
        code.set(asm.R2, len(frame))
        code.set(asm.R3, 0)
        code.call(asm.SKB_CHANGE_HEAD)
        code.jump_if(NE, R0, 0, "next")
        _rewrite(code, frame, 0)
    _redirect(code, veth, helper)


def _redirect(code: Assembly, to: int, helper: int) -> None:
    code.set(asm.R1, to)
    code.set(asm.R2, 0)
    code.call(helper)
    code.leave()
