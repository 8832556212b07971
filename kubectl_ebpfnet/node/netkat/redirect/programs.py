"""The two BPF programs, which pass exactly one flow between the device and the private netns.

    device, ingress:     the flow, and ICMP errors about it ─▶ redirect to the private netns
                         ARP replies, neighbour advertisements, later fragments ─▶ both
                         all else ─▶ the next program
    veth, host's end:    the flow, ARP and neighbour requests ─▶ redirect to the device
                         all else ─▶ dropped: the private netns sends nothing of its own

Between the two, the peer may have a stand-in address (flow.py). Sources: include/uapi/linux/bpf.h
(struct __sk_buff, helpers), net/core/filter.c (skb_do_redirect), RFC 791, 792, 8200, 4443, 4861.
Offsets count from skb->data, which is the MAC header, or the IP header on devices without one. VLAN
tags are not in the data here: the kernel has removed them.
"""

from __future__ import annotations

from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import EQ, FP, NE, R0, R6, R7, Assembly
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow
from kubectl_ebpfnet.node.netkat.redirect.program_actions import (
    clone_to_veth,
    deliver_to_veth,
    redirect,
    rewrite,
)
from kubectl_ebpfnet.node.netkat.redirect.program_parts import (
    BYTES,
    HEADER,
    HEADER_LAYOUTS,
    INNER_BYTES,
    RegisterOffset,
    find_transport,
    load_to_stack,
    require_address,
    require_icmp_error,
    require_note,
    require_one_of,
    require_port,
    require_port_range,
    store_note,
)

NEXT, DROP = -1, 2  # TCX_NEXT, TCX_DROP; the same numbers as TC_ACT_UNSPEC and TC_ACT_SHOT
ETHERNET = 14

_PKT_TYPE, _MARK, _PROTOCOL, _VLAN_PRESENT, _VLAN_TCI = 4, 8, 16, 20, 24  # of struct __sk_buff
_ARP, _ARP_REPLY = b"\x08\x06", b"\x00\x02"
_SOLICITATION, _ADVERTISEMENT = 135, 136


def to_private(flow: CaughtFlow, veth: int, *, frame: bytes = b"", helper: int) -> bytes:
    """Return the program for the device's ingress.

    Args:
        flow: the packets to catch.
        veth: ifindex of the veth's end in the host.
        frame: the MAC header to add, for a device without one.
        helper: assembler.REDIRECT, or REDIRECT_PEER (Linux 5.10), which skips a queue.
    """
    header, code = HEADER_LAYOUTS[flow.version], Assembly()
    base = 0 if frame else ETHERNET
    _opening(code)
    code.load(asm.WORD, R0, R6, _PKT_TYPE)
    code.jump_if(NE, R0, 0, "next")  # promiscuous, broadcast, multicast
    code.load(asm.WORD, R0, R6, _VLAN_PRESENT)
    code.jump_if(EQ, R0, 0, "untagged")
    code.load(asm.WORD, R0, R6, _VLAN_TCI)
    code.mask(R0, 0xFFF)
    code.jump_if(NE, R0, 0, "next")  # a packet of a VLAN device; identifier 0 is only a priority
    code.label("untagged")
    code.load(asm.WORD, R0, R6, _PROTOCOL)
    code.jump_if(EQ, R0, asm.native(_ARP), "arp")
    code.jump_if(NE, R0, asm.native(header.ether_type), "next")
    load_to_stack(code, base, HEADER, header.length)
    require_one_of(code, flow.local_addresses, HEADER + header.destination, "next")
    find_transport(code, flow, base)

    code.label("transport")
    require_address(code, flow.peer, HEADER + header.source, "next")
    load_to_stack(code, RegisterOffset(R7), BYTES, 4)
    require_port(code, flow.peer_port, BYTES)
    require_port_range(code, flow.ports, BYTES + 2)
    require_note(code, flow, BYTES + 2, "deliver")
    rewrite(code, flow.stand_in, base + header.source)
    code.jump("deliver")

    code.label("icmp")
    load_to_stack(code, RegisterOffset(R7), BYTES, 1)
    code.load(asm.BYTE, R0, FP, BYTES)
    if flow.version == 6:
        code.jump_if(EQ, R0, _ADVERTISEMENT, "both")
    require_icmp_error(code, flow, header)
    require_note(code, flow, INNER_BYTES, "deliver")
    rewrite(code, flow.stand_in, RegisterOffset(R7, 8 + header.destination))

    code.label("deliver")
    deliver_to_veth(code, veth, frame, helper)

    code.label("arp")
    if not frame and flow.version == 4:
        load_to_stack(code, base, BYTES, 8)
        code.load(asm.HALF, R0, FP, BYTES + 6)
        code.jump_if(EQ, R0, asm.native(_ARP_REPLY), "both")
    code.jump("next")
    code.label("fragment")
    if not frame:
        require_address(code, flow.peer, HEADER + header.source, "next")
        stand_in = None if flow.notes else flow.stand_in  # unknown for a fragment
        rewrite(code, stand_in, base + header.source)
        clone_to_veth(code, veth)
        rewrite(code, stand_in and flow.peer, base + header.source)
    code.jump("next")
    code.label("both")
    if not frame:
        clone_to_veth(code, veth)
    return _closing(code, NEXT)


def to_wire(flow: CaughtFlow, device: int, *, mark: int = 0, neighbours: bool = True) -> bytes:
    """Return the program at the ingress of the veth's end in the host.

    Args:
        flow: the packets that may leave.
        device: ifindex of the host's device.
        mark: of the packets, as SO_MARK sets it (socket(7)).
        neighbours: pass ARP and neighbour solicitations.
    """
    header, code = HEADER_LAYOUTS[flow.version], Assembly()
    _opening(code)
    code.load(asm.WORD, R0, R6, _PROTOCOL)
    if neighbours and flow.version == 4:
        code.jump_if(EQ, R0, asm.native(_ARP), "send")
    code.jump_if(NE, R0, asm.native(header.ether_type), "next")
    load_to_stack(code, ETHERNET, HEADER, header.length)
    require_one_of(code, flow.local_addresses, HEADER + header.source, "next")
    find_transport(code, flow, ETHERNET)

    code.label("transport")
    load_to_stack(code, RegisterOffset(R7), BYTES, 4)
    require_port_range(code, flow.ports, BYTES)
    require_port(code, flow.peer_port, BYTES + 2)
    if flow.notes:
        require_address(code, flow.stand_in, HEADER + header.destination, "by its own address")
        store_note(code, flow, BYTES, 1)
        code.jump("fragment")
        code.label("by its own address")
        store_note(code, flow, BYTES, 0)
    code.label("fragment")
    require_address(code, flow.stand_in, HEADER + header.destination, "as it is")
    rewrite(code, flow.stand_in and flow.peer, ETHERNET + header.destination)
    code.jump("send")
    if flow.stand_in:
        code.label("as it is")
        if flow.notes:
            require_address(code, flow.peer, HEADER + header.destination, "next")
            code.jump("send")
        else:
            code.jump("next")

    code.label("icmp")
    if neighbours and flow.version == 6:
        load_to_stack(code, RegisterOffset(R7), BYTES, 1)
        code.load(asm.BYTE, R0, FP, BYTES)
        code.jump_if(EQ, R0, _SOLICITATION, "send")
    code.jump("next")

    code.label("send")
    if mark:
        code.set(R0, mark)
        code.store_register(asm.WORD, R6, _MARK, R0)
    redirect(code, device, asm.REDIRECT)
    return _closing(code, DROP)


def _opening(code: Assembly) -> None:
    code.copy(R6, asm.R1)


def _closing(code: Assembly, verdict: int) -> bytes:
    code.label("next")
    code.return_value(verdict)
    return code.program()
