"""An assembler for BPF with labels: the instructions that three small programs need.

Sources: Linux Documentation/bpf/standardization/instruction-set.rst (opcodes), include/uapi/linux/
bpf.h (enum bpf_func_id). 32-bit jumps need Linux 5.1.
"""

from __future__ import annotations

import struct
import sys

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

# Sizes of loads and stores, as bits of an opcode
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
    """Return bytes as the number that a load of their size gives, in this machine's byte order."""
    return int.from_bytes(packed, sys.byteorder)


class Assembly:
    """A program under construction. Methods add an instruction; `program` returns the bytes.

    Immediates are 32 bits; one with the top bit set keeps its bits, since only 32-bit jumps and
    word stores use it.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int, str]] = []
        self._labels: dict[str, int] = {}
        self._names = 0

    def _add(self, code: int, dst: int, src: int, off: int, imm: int, label: str = "") -> None:
        imm &= 0xFFFFFFFF
        self._rows.append((code, dst, src, off, imm - (1 << 32) if imm >> 31 else imm, label))

    def label(self, name: str) -> None:
        """Name the next instruction. Each name is used once."""
        assert name not in self._labels, name
        self._labels[name] = len(self._rows)

    def new_label(self) -> str:
        """Return an unused name for a label."""
        self._names += 1
        return f"#{self._names}"

    def set(self, dst: int, value: int) -> None:
        """Add: dst = value, a signed 32-bit number."""
        self._add(0xB7, dst, 0, 0, value)

    def copy(self, dst: int, src: int) -> None:
        """Add: dst = src."""
        self._add(0xBF, dst, src, 0, 0)

    def add(self, dst: int, value: int) -> None:
        """Add: dst += value."""
        self._add(0x07 | _ADD, dst, 0, 0, value)

    def add_register(self, dst: int, src: int) -> None:
        """Add: dst += src."""
        self._add(0x0F | _ADD, dst, src, 0, 0)

    def mask(self, dst: int, value: int) -> None:
        """Add: dst &= value."""
        self._add(0x07 | _AND, dst, 0, 0, value)

    def shift_left(self, dst: int, bits: int) -> None:
        """Add: dst <<= bits."""
        self._add(0x07 | _LSH, dst, 0, 0, bits)

    def host_order(self, dst: int, bits: int) -> None:
        """Add: dst = dst in host byte order; 16 or 32 bits of network data."""
        self._add(_BIG_ENDIAN[bits], dst, 0, 0, bits)

    def load(self, size: int, dst: int, src: int, offset: int) -> None:
        """Add: dst = *(size *)(src + offset).

        Args:
            size: WORD, HALF or BYTE.
            dst, src: registers.
            offset: in bytes.
        """
        self._add(0x61 | size, dst, src, offset, 0)

    def store(self, size: int, dst: int, offset: int, value: int) -> None:
        """Add: *(size *)(dst + offset) = value.

        Args:
            size: WORD, HALF or BYTE.
            dst: register.
            offset: in bytes.
            value: a number.
        """
        self._add(0x62 | size, dst, 0, offset, value)

    def store_register(self, size: int, dst: int, offset: int, src: int) -> None:
        """Add: *(size *)(dst + offset) = src.

        Args:
            size: WORD, HALF or BYTE.
            dst: register.
            offset: in bytes.
            src: register.
        """
        self._add(0x63 | size, dst, src, offset, 0)

    def store_bytes(self, offset: int, data: bytes) -> None:
        """Add: store bytes on the stack at FP + offset; 4n or 4n + 2 of them."""
        at = 0
        while at < len(data):
            size, step = (WORD, 4) if len(data) - at >= 4 else (HALF, 2)
            self.store(size, FP, offset + at, native(data[at : at + step]))
            at += step

    def load_map(self, dst: int, fd: int) -> None:
        """Add: dst = the map of a descriptor (two instructions, for a 64-bit immediate)."""
        self._add(0x18, dst, _MAP_FD, 0, fd)
        self._add(0, 0, 0, 0, 0)

    def jump_if_null(self, dst: int, label: str) -> None:
        """Add a jump for 64 zero bits in dst: the verifier's test of a pointer."""
        self._add(0x15, dst, 0, 0, 0, label)

    def jump(self, label: str) -> None:
        """Add a jump to a label."""
        self._add(0x05, 0, 0, 0, 0, label)

    def jump_if(self, condition: int, dst: int, value: int, label: str) -> None:
        """Add a jump for a comparison of the low 32 bits of a register.

        Args:
            condition: EQ, GT, NE or LT.
            dst: register.
            value: compared with it.
            label: where to jump.
        """
        self._add(0x06 | condition, dst, 0, 0, value, label)

    def call(self, helper: int) -> None:
        """Add a call of a helper: arguments in R1-R5, which it clobbers; the result in R0."""
        self._add(0x85, 0, 0, 0, helper)

    def exit(self) -> None:
        """Add: return R0."""
        self._add(0x95, 0, 0, 0, 0)

    def return_value(self, verdict: int) -> None:
        """Add: return a number."""
        self.set(R0, verdict)
        self.exit()

    def program(self) -> bytes:
        """Return struct bpf_insn of every instruction. Raises KeyError for a missing label."""
        out = bytearray()
        little = sys.byteorder == "little"
        for number, (code, dst, src, off, imm, label) in enumerate(self._rows):
            if label:
                off = self._labels[label] - number - 1
            registers = (src << 4 | dst) if little else (dst << 4 | src)
            out += struct.pack("=BBhi", code, registers, off, imm)
        return bytes(out)
