"""The two BPF programs: exactly one flow between the device and the private netns.

    device, ingress:     the flow, and ICMP errors about it ─▶ redirect to the private netns
                         ARP replies, neighbour advertisements, later fragments ─▶ both
                         all else ─▶ the next program
    veth, host's end:    the flow, ARP and neighbour requests ─▶ redirect to the device
                         all else ─▶ dropped: the private netns says nothing of its own

Between the two, the peer may have a stand-in address (flow.py). Sources: include/uapi/linux/bpf.h
(struct __sk_buff, helpers), net/core/filter.c (skb_do_redirect), RFC 791, 792, 8200, 4443, 4861.
Frames are read by offsets from skb->data, which is the MAC header, or the IP header on devices that
have none. VLAN tags are not in the data at this point: the kernel has taken them off.
"""

from __future__ import annotations

from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import EQ, FP, NE, R0, R6, R7, Assembly
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow
from kubectl_ebpfnet.node.netkat.redirect.program_parts import (
    BYTES,
    FORMS,
    HEADER,
    INNER_BYTES,
    Behind,
    address_is,
    clone,
    deliver,
    error_about,
    load,
    note,
    noted,
    one_of,
    port_in,
    port_is,
    redirect_to,
    rewrite,
    to_transport,
)

NEXT, DROP = -1, 2  # TCX_NEXT, TCX_DROP; the same numbers as TC_ACT_UNSPEC and TC_ACT_SHOT
ETHERNET = 14

_PKT_TYPE, _MARK, _PROTOCOL, _VLAN_PRESENT, _VLAN_TCI = 4, 8, 16, 20, 24  # of struct __sk_buff
_ARP, _ARP_REPLY = b"\x08\x06", b"\x00\x02"
_SOLICITATION, _ADVERTISEMENT = 135, 136


def to_private(flow: CaughtFlow, veth: int, *, frame: bytes = b"", helper: int) -> bytes:
    """The program at the device's ingress.

    Args:
        flow: what to catch.
        veth: ifindex of the veth's end in the host.
        frame: for devices without a MAC header, the 14 bytes to put before the packet.
        helper: assembler.REDIRECT, or REDIRECT_PEER (Linux 5.10), which spares a queue.
    """
    form, code = FORMS[flow.version], Assembly()
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
    load(code, base, HEADER, form.length)
    one_of(code, flow.locals, HEADER + form.destination, "next")
    to_transport(code, flow, base)

    code.label("transport")
    address_is(code, flow.peer, HEADER + form.source, "next")
    load(code, Behind(R7), BYTES, 4)
    port_is(code, flow.peer_port, BYTES)
    port_in(code, flow.ports, BYTES + 2)
    noted(code, flow, BYTES + 2, "deliver")
    rewrite(code, flow.stand_in, base + form.source)
    code.jump("deliver")

    code.label("icmp")
    load(code, Behind(R7), BYTES, 1)
    code.load(asm.BYTE, R0, FP, BYTES)
    if flow.version == 6:
        code.jump_if(EQ, R0, _ADVERTISEMENT, "both")
    error_about(code, flow, form)
    noted(code, flow, INNER_BYTES, "deliver")
    rewrite(code, flow.stand_in, Behind(R7, 8 + form.destination))

    code.label("deliver")
    deliver(code, veth, frame, helper)

    code.label("arp")
    if not frame and flow.version == 4:
        load(code, base, BYTES, 8)
        code.load(asm.HALF, R0, FP, BYTES + 6)
        code.jump_if(EQ, R0, asm.native(_ARP_REPLY), "both")
    code.jump("next")
    code.label("fragment")
    if not frame:
        address_is(code, flow.peer, HEADER + form.source, "next")
        stand_in = None if flow.notes else flow.stand_in  # of a fragment it is not known
        rewrite(code, stand_in, base + form.source)
        clone(code, veth)
        rewrite(code, stand_in and flow.peer, base + form.source)
    code.jump("next")
    code.label("both")
    if not frame:
        clone(code, veth)
    return _closing(code, NEXT)


def to_wire(flow: CaughtFlow, device: int, *, mark: int = 0, neighbours: bool = True) -> bytes:
    """The program at the ingress of the veth's end in the host.

    Args:
        flow: what may leave.
        device: ifindex of the real device.
        mark: for the packets, as SO_MARK would give them (socket(7)).
        neighbours: let ARP and neighbour solicitations out.
    """
    form, code = FORMS[flow.version], Assembly()
    _opening(code)
    code.load(asm.WORD, R0, R6, _PROTOCOL)
    if neighbours and flow.version == 4:
        code.jump_if(EQ, R0, asm.native(_ARP), "send")
    code.jump_if(NE, R0, asm.native(form.ether_type), "next")
    load(code, ETHERNET, HEADER, form.length)
    one_of(code, flow.locals, HEADER + form.source, "next")
    to_transport(code, flow, ETHERNET)

    code.label("transport")
    load(code, Behind(R7), BYTES, 4)
    port_in(code, flow.ports, BYTES)
    port_is(code, flow.peer_port, BYTES + 2)
    if flow.notes:
        address_is(code, flow.stand_in, HEADER + form.destination, "by its own address")
        note(code, flow, BYTES, 1)
        code.jump("fragment")
        code.label("by its own address")
        note(code, flow, BYTES, 0)
    code.label("fragment")
    address_is(code, flow.stand_in, HEADER + form.destination, "as it is")
    rewrite(code, flow.stand_in and flow.peer, ETHERNET + form.destination)
    code.jump("send")
    if flow.stand_in:
        code.label("as it is")
        if flow.notes:
            address_is(code, flow.peer, HEADER + form.destination, "next")
            code.jump("send")
        else:
            code.jump("next")

    code.label("icmp")
    if neighbours and flow.version == 6:
        load(code, Behind(R7), BYTES, 1)
        code.load(asm.BYTE, R0, FP, BYTES)
        code.jump_if(EQ, R0, _SOLICITATION, "send")
    code.jump("next")

    code.label("send")
    if mark:
        code.set(R0, mark)
        code.store_register(asm.WORD, R6, _MARK, R0)
    redirect_to(code, device, asm.REDIRECT)
    return _closing(code, DROP)


def _opening(code: Assembly) -> None:
    code.copy(R6, asm.R1)


def _closing(code: Assembly, verdict: int) -> bytes:
    code.label("next")
    code.give(verdict)
    return code.program()
