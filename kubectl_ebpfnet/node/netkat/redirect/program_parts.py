"""Parts of the two programs: read a header and compare; what is done then is in program_actions.py.

Each function adds instructions to a program. R6 is the packet, R7 the offset behind the IP header
once it is known; a packet that does not match jumps to the label "next".
Sources: as kubectl_ebpfnet/node/netkat/redirect/programs.py.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import EQ, FP, GT, LT, NE, R0, R6, R7, R8, R9, Assembly
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow

# Offsets on the stack: the IP header, four bytes behind it, the same of a packet in an ICMP error
HEADER, BYTES, INNER, INNER_BYTES = -40, -48, -88, -96
SCRATCH, _KEY = -112, -120
_EXTENSIONS = 4


@dataclass(frozen=True, slots=True)
class HeaderLayout:
    """Offsets in the header of one IP version, in bytes.

    Attributes:
        ether_type: of the version.
        length: of the header without options.
        source, destination, next_header: offsets.
        errors: types of ICMP errors.
    """

    ether_type: bytes
    length: int
    source: int
    destination: int
    next_header: int
    errors: tuple[int, ...]


HEADER_LAYOUTS = {
    4: HeaderLayout(b"\x08\x00", 20, 12, 16, 9, (3, 4, 11, 12)),
    6: HeaderLayout(b"\x86\xdd", 40, 8, 24, 6, (1, 2, 3, 4)),
}


@dataclass(frozen=True, slots=True)
class RegisterOffset:
    """A place in the packet: `offset` bytes behind the offset in a register."""

    register: int
    offset: int = 0


def set_place(code: Assembly, place: int | RegisterOffset) -> None:
    """Add: R1 = the packet, R2 = the place in it."""
    code.copy(asm.R1, R6)
    if isinstance(place, RegisterOffset):
        code.copy(asm.R2, place.register)
        code.add(asm.R2, place.offset)
    else:
        code.set(asm.R2, place)


def load_to_stack(code: Assembly, place: int | RegisterOffset, target: int, length: int) -> None:
    """Add a copy of bytes of the packet to the stack.

    Args:
        code: the program.
        place: in the packet.
        target: offset on the stack.
        length: number of bytes.
    """
    set_place(code, place)
    code.copy(asm.R3, FP)
    code.add(asm.R3, target)
    code.set(asm.R4, length)
    code.call(asm.SKB_LOAD_BYTES)
    code.jump_if(NE, R0, 0, "next")


def require_one_of(
    code: Assembly, addresses: tuple[bytes, ...], offset: int, else_label: str
) -> None:
    """Add a check that an address on the stack is one of several.

    Args:
        code: the program.
        addresses: packed.
        offset: of the address on the stack.
        else_label: where other packets go.
    """
    found = code.new_label()
    for address in addresses:
        other = code.new_label()
        require_address(code, address, offset, other)
        code.jump(found)
        code.label(other)
    code.jump(else_label)
    code.label(found)


def require_address(code: Assembly, address: bytes | None, offset: int, else_label: str) -> None:
    """Add a check that an address on the stack is this one.

    Args:
        code: the program.
        address: packed; None for any.
        offset: of the address on the stack.
        else_label: where other packets go.
    """
    for n in range(0, len(address or b""), 4):
        assert address is not None
        code.load(asm.WORD, R0, FP, offset + n)
        code.jump_if(NE, R0, asm.native(address[n : n + 4]), else_label)


def require_port(code: Assembly, port: int, offset: int) -> None:
    """Add a check that a port on the stack is this one, else go to "next".

    Args:
        code: the program.
        port: 0 for any.
        offset: of the port on the stack.
    """
    if port:
        code.load(asm.HALF, R0, FP, offset)
        code.jump_if(NE, R0, asm.native(port.to_bytes(2, "big")), "next")


def require_port_range(code: Assembly, ports: tuple[int, int], offset: int) -> None:
    """Add a check that a port on the stack is in a range, else go to "next".

    Args:
        code: the program.
        ports: first and last.
        offset: of the port on the stack.
    """
    code.load(asm.HALF, R0, FP, offset)
    code.host_order(R0, 16)
    code.jump_if(LT, R0, ports[0], "next")
    code.jump_if(GT, R0, ports[1], "next")


def find_transport(code: Assembly, flow: CaughtFlow, base: int) -> None:
    """Add: R7 = offset behind the IP header; go to "transport", "icmp", "fragment" or "next".

    Args:
        code: the program.
        flow: the packets to catch.
        base: offset of the IP header in the packet.
    """
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
        load_to_stack(code, RegisterOffset(R7), BYTES, 4)
        code.load(asm.HALF, R0, FP, BYTES + 2)
        code.host_order(R0, 16)
        code.mask(R0, 0xFFF8)
        code.jump_if(NE, R0, 0, "fragment")
        code.load(asm.BYTE, R8, FP, BYTES)
        code.add(R7, 8)
        code.jump(f"after {n}")
        code.label(f"extension {n}")
        load_to_stack(code, RegisterOffset(R7), BYTES, 2)
        code.load(asm.BYTE, R8, FP, BYTES)
        code.load(asm.BYTE, R0, FP, BYTES + 1)
        code.add(R0, 1)
        code.shift_left(R0, 3)
        code.add_register(R7, R0)
        code.label(f"after {n}")
    code.jump_if(NE, R8, flow.protocol, "next")


def _header_length(code: Assembly, register: int, offset: int) -> None:
    code.load(asm.BYTE, register, FP, offset)
    code.mask(register, 0x0F)
    code.shift_left(register, 2)


def require_icmp_error(code: Assembly, flow: CaughtFlow, header: HeaderLayout) -> None:
    """Add a check that the ICMP message is an error about a packet of the flow.

    Args:
        code: the program.
        flow: the packets to catch.
        header: layout of the IP header.
    """
    for kind in header.errors:
        code.jump_if(EQ, R0, kind, "error")
    code.jump("next")
    code.label("error")
    load_to_stack(code, RegisterOffset(R7, 8), INNER, header.length)
    require_one_of(code, flow.local_addresses, INNER + header.source, "next")
    require_address(code, flow.peer, INNER + header.destination, "next")
    code.load(asm.BYTE, R0, FP, INNER + header.next_header)
    code.jump_if(NE, R0, flow.protocol, "next")
    if flow.version == 4:
        code.load(asm.HALF, R0, FP, INNER + 6)
        code.host_order(R0, 16)
        code.mask(R0, 0x1FFF)
        code.jump_if(NE, R0, 0, "next")
        _header_length(code, R9, INNER)
    else:
        code.set(R9, header.length)
    code.add_register(R9, R7)
    load_to_stack(code, RegisterOffset(R9, 8), INNER_BYTES, 4)
    require_port_range(code, flow.ports, INNER_BYTES)
    require_port(code, flow.peer_port, INNER_BYTES + 2)


def _find_note(code: Assembly, flow: CaughtFlow, offset: int) -> None:
    """Add: R0 = address of the note of the local port on the stack, which is in its range."""
    code.load(asm.HALF, R0, FP, offset)
    code.host_order(R0, 16)
    code.add(R0, -flow.ports[0])
    code.store_register(asm.WORD, FP, _KEY, R0)
    code.load_map(asm.R1, flow.notes)
    code.copy(asm.R2, FP)
    code.add(asm.R2, _KEY)
    code.call(asm.MAP_LOOKUP_ELEM)
    code.jump_if_null(R0, "next")


def store_note(code: Assembly, flow: CaughtFlow, offset: int, value: int) -> None:
    """Add a note: the local port uses the stand-in (1) or the peer's own address (0).

    Args:
        code: the program.
        flow: the packets to catch.
        offset: of the local port on the stack.
        value: 1 or 0.
    """
    _find_note(code, flow, offset)
    code.store(asm.WORD, R0, 0, value)


def require_note(code: Assembly, flow: CaughtFlow, offset: int, else_label: str) -> None:
    """Add a check that the local port uses the stand-in; without notes every port does.

    Args:
        code: the program.
        flow: the packets to catch.
        offset: of the local port on the stack.
        else_label: where other packets go.
    """
    if flow.notes:
        _find_note(code, flow, offset)
        code.load(asm.WORD, R0, R0, 0)
        code.jump_if(EQ, R0, 0, else_label)
