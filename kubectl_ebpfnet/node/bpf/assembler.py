"""BPF instructions with labels: as much of an assembler as three small programs need.

Sources: Linux Documentation/bpf/standardization/instruction-set.rst (opcodes), include/uapi/linux/
bpf.h (enum bpf_func_id). 32-bit jumps need Linux 5.1.
"""

from __future__ import annotations

import struct
import sys

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

# Sizes of loads and stores, as they are in an opcode
WORD, HALF, BYTE = 0x00, 0x08, 0x10

# Jumps that compare 32 bits with an immediate (class JMP32)
EQ, GT, NE, LT = 0x10, 0x20, 0x50, 0xA0

# Helpers
MAP_LOOKUP_ELEM, SKB_STORE_BYTES, TAIL_CALL, CLONE_REDIRECT, REDIRECT = 1, 9, 12, 13, 23
SKB_LOAD_BYTES, SKB_CHANGE_HEAD, REDIRECT_PEER = 26, 43, 155

_ADD, _AND, _LSH = 0x00, 0x50, 0x60
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD
_BIG_ENDIAN = {16: 0xDC, 32: 0xDC}


def native(packed: bytes) -> int:
    """Bytes as a load of this size gives them: in this machine's order, whatever they mean."""
    return int.from_bytes(packed, sys.byteorder)


class Assembly:
    """A program in the making. Methods add an instruction; `program` gives the bytes.

    Immediates are 32 bits; those with the top bit set are taken as they are, since only 32-bit
    jumps and word stores use them.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int, str]] = []
        self._labels: dict[str, int] = {}
        self._names = 0

    def _add(self, code: int, dst: int, src: int, off: int, imm: int, label: str = "") -> None:
        imm &= 0xFFFFFFFF
        self._rows.append((code, dst, src, off, imm - (1 << 32) if imm >> 31 else imm, label))

    def label(self, name: str) -> None:
        """The next instruction has this name. Each name is given once."""
        assert name not in self._labels, name
        self._labels[name] = len(self._rows)

    def fresh(self) -> str:
        """A label's name that nobody has."""
        self._names += 1
        return f"#{self._names}"

    def set(self, dst: int, value: int) -> None:
        """dst = value, a signed 32-bit number."""
        self._add(0xB7, dst, 0, 0, value)

    def copy(self, dst: int, src: int) -> None:
        """dst = src."""
        self._add(0xBF, dst, src, 0, 0)

    def add(self, dst: int, value: int) -> None:
        """dst += value."""
        self._add(0x07 | _ADD, dst, 0, 0, value)

    def add_register(self, dst: int, src: int) -> None:
        """dst += src."""
        self._add(0x0F | _ADD, dst, src, 0, 0)

    def mask(self, dst: int, value: int) -> None:
        """dst &= value."""
        self._add(0x07 | _AND, dst, 0, 0, value)

    def shift_left(self, dst: int, bits: int) -> None:
        """dst <<= bits."""
        self._add(0x07 | _LSH, dst, 0, 0, bits)

    def host_order(self, dst: int, bits: int) -> None:
        """dst, loaded from the network, as a number; 16 or 32 bits."""
        self._add(_BIG_ENDIAN[bits], dst, 0, 0, bits)

    def load(self, size: int, dst: int, src: int, offset: int) -> None:
        """dst = *(size *)(src + offset)."""
        self._add(0x61 | size, dst, src, offset, 0)

    def store(self, size: int, dst: int, offset: int, value: int) -> None:
        """*(size *)(dst + offset) = value."""
        self._add(0x62 | size, dst, 0, offset, value)

    def store_register(self, size: int, dst: int, offset: int, src: int) -> None:
        """*(size *)(dst + offset) = src."""
        self._add(0x63 | size, dst, src, offset, 0)

    def store_bytes(self, offset: int, data: bytes) -> None:
        """Put bytes on the stack at FP + offset; a multiple of four of them, or two at the end."""
        at = 0
        while at < len(data):
            size, step = (WORD, 4) if len(data) - at >= 4 else (HALF, 2)
            self.store(size, FP, offset + at, native(data[at : at + step]))
            at += step

    def map_in(self, dst: int, fd: int) -> None:
        """dst = the map of a descriptor (two instructions' room: a 64-bit immediate)."""
        self._add(0x18, dst, _MAP_FD, 0, fd)
        self._add(0, 0, 0, 0, 0)

    def jump_if_null(self, dst: int, label: str) -> None:
        """Go on at a label when all 64 bits of dst are 0: the verifier knows a pointer by it."""
        self._add(0x15, dst, 0, 0, 0, label)

    def jump(self, label: str) -> None:
        """Go on at a label."""
        self._add(0x05, 0, 0, 0, 0, label)

    def jump_if(self, condition: int, dst: int, value: int, label: str) -> None:
        """Go on at a label when the low 32 bits of dst compare so with value."""
        self._add(0x06 | condition, dst, 0, 0, value, label)

    def call(self, helper: int) -> None:
        """Call a helper: arguments in R1-R5, which are lost; the answer in R0."""
        self._add(0x85, 0, 0, 0, helper)

    def leave(self) -> None:
        """Return R0."""
        self._add(0x95, 0, 0, 0, 0)

    def give(self, verdict: int) -> None:
        """Return a number."""
        self.set(R0, verdict)
        self.leave()

    def program(self) -> bytes:
        """struct bpf_insn of every instruction. Raises KeyError for a label that is missing."""
        out = bytearray()
        little = sys.byteorder == "little"
        for number, (code, dst, src, off, imm, label) in enumerate(self._rows):
            if label:
                off = self._labels[label] - number - 1
            registers = (src << 4 | dst) if little else (dst << 4 | src)
            out += struct.pack("=BBhi", code, registers, off, imm)
        return bytes(out)
