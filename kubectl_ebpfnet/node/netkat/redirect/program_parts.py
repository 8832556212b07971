"""What the two programs are made of: read a header, compare, rewrite, go on.

Each function adds instructions to a program. R6 holds the packet all the time, R7 the offset behind
the IP header once it is known; a packet that is not what was asked for goes to the label "next".
Sources: as kubectl_ebpfnet/node/netkat/redirect/programs.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import EQ, FP, GT, LT, NE, R0, R6, R7, R8, R9, Assembly
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow

# Places on the stack: the IP header, four bytes behind it, the same of a packet that ICMP quotes
HEADER, BYTES, INNER, INNER_BYTES = -40, -48, -88, -96
_SCRATCH, _KEY = -112, -120
_EXTENSIONS = 4


@dataclass(frozen=True, slots=True)
class Form:
    """Where things are in the header of one IP version; offsets in bytes."""

    ether_type: bytes
    length: int
    source: int
    destination: int
    next_header: int
    icmp: int
    errors: tuple[int, ...]


FORMS = {
    4: Form(b"\x08\x00", 20, 12, 16, 9, 1, (3, 4, 11, 12)),
    6: Form(b"\x86\xdd", 40, 8, 24, 6, 58, (1, 2, 3, 4)),
}


@dataclass(frozen=True, slots=True)
class Behind:
    """A place in the packet: so many bytes behind what a register says."""

    register: int
    beyond: int = 0


def _place(code: Assembly, where: int | Behind) -> None:
    """R1 = the packet, R2 = the place in it."""
    code.copy(asm.R1, R6)
    if isinstance(where, Behind):
        code.copy(asm.R2, where.register)
        code.add(asm.R2, where.beyond)
    else:
        code.set(asm.R2, where)


def load(code: Assembly, where: int | Behind, to: int, length: int) -> None:
    """Copy bytes of the packet to the stack."""
    _place(code, where)
    code.copy(asm.R3, FP)
    code.add(asm.R3, to)
    code.set(asm.R4, length)
    code.call(asm.SKB_LOAD_BYTES)
    code.jump_if(NE, R0, 0, "next")


def one_of(code: Assembly, addresses: tuple[bytes, ...], at: int, otherwise: str) -> None:
    """Go on where the address on the stack is one of these, else jump."""
    found = code.fresh()
    for address in addresses:
        other = code.fresh()
        address_is(code, address, at, other)
        code.jump(found)
        code.label(other)
    code.jump(otherwise)
    code.label(found)


def address_is(code: Assembly, address: bytes | None, at: int, otherwise: str) -> None:
    for n in range(0, len(address or b""), 4):
        assert address is not None
        code.load(asm.WORD, R0, FP, at + n)
        code.jump_if(NE, R0, asm.native(address[n : n + 4]), otherwise)


def port_is(code: Assembly, port: int, at: int) -> None:
    if port:
        code.load(asm.HALF, R0, FP, at)
        code.jump_if(NE, R0, asm.native(port.to_bytes(2, "big")), "next")


def port_in(code: Assembly, ports: tuple[int, int], at: int) -> None:
    code.load(asm.HALF, R0, FP, at)
    code.host_order(R0, 16)
    code.jump_if(LT, R0, ports[0], "next")
    code.jump_if(GT, R0, ports[1], "next")


def to_transport(code: Assembly, flow: CaughtFlow, base: int) -> None:
    """R7 = offset behind the IP header; then to transport, icmp, fragment or next."""
    if flow.version == 4:
        code.load(asm.HALF, R0, FP, HEADER + 6)
        code.host_order(R0, 16)
        code.mask(R0, 0x1FFF)
        code.load(asm.BYTE, R8, FP, HEADER + 9)
        code.jump_if(NE, R0, 0, "fragment")
        _header_length(code, R7, HEADER)
        code.add(R7, base)
        code.jump_if(EQ, R8, flow.protocol, "transport")
        code.jump_if(EQ, R8, 1, "icmp")
        code.jump("next")
        return
    code.load(asm.BYTE, R8, FP, HEADER + 6)
    code.set(R7, base + 40)
    for n in range(_EXTENSIONS):
        code.jump_if(EQ, R8, flow.protocol, "transport")
        code.jump_if(EQ, R8, 58, "icmp")
        code.jump_if(EQ, R8, 44, f"fragment header {n}")
        for kind in (0, 43, 60):  # hop-by-hop, routing, destination options
            code.jump_if(EQ, R8, kind, f"extension {n}")
        code.jump("next")
        code.label(f"fragment header {n}")
        load(code, Behind(R7), BYTES, 4)
        code.load(asm.HALF, R0, FP, BYTES + 2)
        code.host_order(R0, 16)
        code.mask(R0, 0xFFF8)
        code.jump_if(NE, R0, 0, "fragment")
        code.load(asm.BYTE, R8, FP, BYTES)
        code.add(R7, 8)
        code.jump(f"after {n}")
        code.label(f"extension {n}")
        load(code, Behind(R7), BYTES, 2)
        code.load(asm.BYTE, R8, FP, BYTES)
        code.load(asm.BYTE, R0, FP, BYTES + 1)
        code.add(R0, 1)
        code.shift_left(R0, 3)
        code.add_register(R7, R0)
        code.label(f"after {n}")
    code.jump_if(NE, R8, flow.protocol, "next")


def _header_length(code: Assembly, register: int, at: int) -> None:
    code.load(asm.BYTE, register, FP, at)
    code.mask(register, 0x0F)
    code.shift_left(register, 2)


def error_about(code: Assembly, flow: CaughtFlow, form: Form) -> None:
    """Go on where the ICMP message is an error that quotes a packet of the flow."""
    for kind in form.errors:
        code.jump_if(EQ, R0, kind, "error")
    code.jump("next")
    code.label("error")
    load(code, Behind(R7, 8), INNER, form.length)
    one_of(code, flow.locals, INNER + form.source, "next")
    address_is(code, flow.peer, INNER + form.destination, "next")
    code.load(asm.BYTE, R0, FP, INNER + form.next_header)
    code.jump_if(NE, R0, flow.protocol, "next")
    if flow.version == 4:
        code.load(asm.HALF, R0, FP, INNER + 6)
        code.host_order(R0, 16)
        code.mask(R0, 0x1FFF)
        code.jump_if(NE, R0, 0, "next")
        _header_length(code, R9, INNER)
    else:
        code.set(R9, form.length)
    code.add_register(R9, R7)
    load(code, Behind(R9, 8), INNER_BYTES, 4)
    port_in(code, flow.ports, INNER_BYTES)
    port_is(code, flow.peer_port, INNER_BYTES + 2)


def _note(code: Assembly, flow: CaughtFlow, at: int) -> None:
    """R0 = where the note of the local port on the stack is; the port is in its range."""
    code.load(asm.HALF, R0, FP, at)
    code.host_order(R0, 16)
    code.add(R0, -flow.ports[0])
    code.store_register(asm.WORD, FP, _KEY, R0)
    code.map_in(asm.R1, flow.notes)
    code.copy(asm.R2, FP)
    code.add(asm.R2, _KEY)
    code.call(asm.MAP_LOOKUP_ELEM)
    code.jump_if_null(R0, "next")


def note(code: Assembly, flow: CaughtFlow, at: int, value: int) -> None:
    """Keep that this local port calls the peer by its stand-in (1) or by its own address (0)."""
    _note(code, flow, at)
    code.store(asm.WORD, R0, 0, value)


def noted(code: Assembly, flow: CaughtFlow, at: int, otherwise: str) -> None:
    """Go on where the local port calls the peer by its stand-in; also where nobody keeps notes."""
    if flow.notes:
        _note(code, flow, at)
        code.load(asm.WORD, R0, R0, 0)
        code.jump_if(EQ, R0, 0, otherwise)


def rewrite(code: Assembly, data: bytes | None, where: int | Behind) -> None:
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


def clone(code: Assembly, veth: int) -> None:
    code.copy(asm.R1, R6)
    code.set(asm.R2, veth)
    code.set(asm.R3, 0)
    code.call(asm.CLONE_REDIRECT)


def deliver(code: Assembly, veth: int, frame: bytes, helper: int) -> None:
    if frame:
        code.copy(asm.R1, R6)
        code.set(asm.R2, len(frame))
        code.set(asm.R3, 0)
        code.call(asm.SKB_CHANGE_HEAD)
        code.jump_if(NE, R0, 0, "next")
        rewrite(code, frame, 0)
    redirect_to(code, veth, helper)


def redirect_to(code: Assembly, to: int, helper: int) -> None:
    code.set(asm.R1, to)
    code.set(asm.R2, 0)
    code.call(helper)
    code.leave()
