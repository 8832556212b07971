"""What the two programs do with a packet of the flow: rewrite, clone, deliver, redirect.

Each function adds instructions to a program. R6 is the packet. Sources: as
kubectl_ebpfnet/node/netkat/redirect/programs.py.
"""

from __future__ import annotations

from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import FP, NE, R0, R6, Assembly
from kubectl_ebpfnet.node.netkat.redirect.program_parts import SCRATCH, RegisterOffset, set_place


def rewrite(code: Assembly, data: bytes | None, place: int | RegisterOffset) -> None:
    """Add a write of an address, or of a MAC header, into the packet.

    Args:
        code: the program.
        data: to write; None for nothing.
        place: in the packet.
    """
    if data is None:
        return
    code.store_bytes(SCRATCH, data)
    set_place(code, place)
    code.copy(asm.R3, FP)
    code.add(asm.R3, SCRATCH)
    code.set(asm.R4, len(data))
    code.set(asm.R5, 0)
    code.call(asm.SKB_STORE_BYTES)
    code.jump_if(NE, R0, 0, "next")


def clone_to_veth(code: Assembly, veth: int) -> None:
    """Add a redirect of a copy of the packet to the veth."""
    code.copy(asm.R1, R6)
    code.set(asm.R2, veth)
    code.set(asm.R3, 0)
    code.call(asm.CLONE_REDIRECT)


def deliver_to_veth(code: Assembly, veth: int, frame: bytes, helper: int) -> None:
    """Add a redirect of the packet to the veth, with a MAC header if it has none.

    Args:
        code: the program.
        veth: ifindex.
        frame: MAC header to add, b"" for none.
        helper: assembler.REDIRECT or REDIRECT_PEER.
    """
    if frame:
        code.copy(asm.R1, R6)
        code.set(asm.R2, len(frame))
        code.set(asm.R3, 0)
        code.call(asm.SKB_CHANGE_HEAD)
        code.jump_if(NE, R0, 0, "next")
        rewrite(code, frame, 0)
    redirect(code, veth, helper)


def redirect(code: Assembly, target: int, helper: int) -> None:
    """Add a redirect of the packet to a device; the program ends with it.

    Args:
        code: the program.
        target: ifindex.
        helper: assembler.REDIRECT or REDIRECT_PEER.
    """
    code.set(asm.R1, target)
    code.set(asm.R2, 0)
    code.call(helper)
    code.exit()
