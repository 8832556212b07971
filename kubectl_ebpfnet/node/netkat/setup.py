"""Lay the way for one peer or one listener: ports held, private netns furnished, programs attached.

The order matters: the port is held before anything can be caught, the veth is there before a
program names it, and the programs are attached before the first packet is sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from dataclasses import dataclass

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.bpf import assembler
from kubectl_ebpfnet.node.bpf.load import create_array, load_classifier
from kubectl_ebpfnet.node.netkat import ports, route
from kubectl_ebpfnet.node.netkat.private_netns import PrivateNetns
from kubectl_ebpfnet.node.netkat.redirect import programs
from kubectl_ebpfnet.node.netkat.redirect.attach import IngressPrograms
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow, neutral
from kubectl_ebpfnet.node.netkat.route import CopiedRoute, PeerRoute

# The next hop of a listener whose next hop is given by its MAC: nobody else has this address.
_NAMELESS = {4: "198.19.255.254", 6: "2001:2:0:ffff::fffe"}
_FRAME_SOURCE = bytes.fromhex("020000000001")


@dataclass(frozen=True, slots=True)
class NetkatSetup:
    """A way that is ready.

    Attributes:
        near: what the private netns calls the peer; "" for a listener.
        real: the stand-in, packed → the peer's own address, packed; empty without a stand-in.
        attached: to the device.
    """

    private: PrivateNetns
    way: PeerRoute
    first_port: int
    near: str
    real: dict[bytes, bytes]
    attached: IngressPrograms


def to_peer(
    stack: contextlib.ExitStack,
    request: Request,
    peer: str,
    scope: int = 0,
    *,
    tcx: bool = True,
    connections: int = 1,
) -> NetkatSetup:
    """Lay the way to an address; `stack` takes it away again.

    Args:
        connections: that will be made; their local ports follow on Laid.first_port.

    Raises:
        Unsupported, KernelError: no way, no port, no rights (the modules of this folder say which).
    """
    way = route.to_peer(request, peer, scope)
    version, packed = ipaddress.ip_address(peer).version, ipaddress.ip_address(peer).packed
    only = (version, request.udp, way.sources[0])
    if connections > 1:
        held = ports.hold_range(*only, scope, connections)
    elif request.command and not request.source_port:
        held = ports.hold_range(*only, scope)
    else:
        held = ports.hold(*only, request.source_port, scope)
    stack.callback(held.free)
    stand_in = neutral(packed)
    near = str(ipaddress.ip_address(stand_in))
    notes = 0
    if request.command:  # it may call the peer by either address, each connection as it likes
        notes = create_array(held.last - held.first + 1, "netkat_notes")
        stack.callback(os.close, notes)
    bare = bool(way.gateway_mac) or not way.device.arp  # no address of a next hop is asked for
    prefix = ipaddress.ip_address(near).max_prefixlen
    routes = [
        CopiedRoute(f"{near}/{prefix}", "" if bare else way.gateway or peer, way.mtu),
        CopiedRoute(f"{peer}/{prefix}", "" if bare else way.gateway, way.mtu),
    ]
    flow = CaughtFlow(
        version, socket.IPPROTO_UDP if request.udp else socket.IPPROTO_TCP,
        (ipaddress.ip_address(way.sources[0]).packed,), (held.first, held.last),
        packed, request.port, stand_in, notes,
    )  # fmt: skip
    private = PrivateNetns()
    stack.callback(os.close, private.fd)
    asked = way.device.mac and way.gateway_mac
    known = dict.fromkeys((near, peer), way.gateway_mac) if asked else {}
    # Only a program chooses a port by itself.
    port_range = (held.first, held.last) if request.command else None
    private.lay(way.device)
    private.furnish(way, routes, known, port_range)
    attached = _join(stack, request, way, flow, private, tcx=tcx)
    return NetkatSetup(private, way, held.first, near, {stand_in: packed}, attached)


def to_clients(
    stack: contextlib.ExitStack, request: Request, address: str, *, tcx: bool = True
) -> NetkatSetup:
    """Lay the way of a listener on an address; `stack` takes it away again. Raises as `to_peer`."""
    way = route.to_clients(request, address)
    version = ipaddress.ip_address(address).version
    held = ports.hold(version, request.udp, address, request.port)
    stack.callback(held.free)
    flow = CaughtFlow(
        version, socket.IPPROTO_UDP if request.udp else socket.IPPROTO_TCP,
        tuple(ipaddress.ip_address(one).packed for one in way.sources), (held.first, held.last),
    )  # fmt: skip
    routes, neighbours = list(way.routes), {}
    if way.gateway_mac:
        neighbours = {_NAMELESS[version]: way.gateway_mac}
        routes = [CopiedRoute("", _NAMELESS[version]) if not one.prefix else one for one in routes]
    elif not way.device.arp:
        routes = [CopiedRoute(one.prefix, "", one.mtu) for one in routes]
    private = PrivateNetns()
    stack.callback(os.close, private.fd)
    private.lay(way.device)
    private.furnish(way, routes, neighbours)
    attached = _join(stack, request, way, flow, private, tcx=tcx)
    return NetkatSetup(private, way, held.first, "", {}, attached)


def _join(
    stack: contextlib.ExitStack,
    request: Request,
    way: PeerRoute,
    flow: CaughtFlow,
    private: PrivateNetns,
    *,
    tcx: bool,
) -> IngressPrograms:
    """Join the private netns and the device by the two programs."""
    device = way.device
    frame = b""
    if not device.mac:
        with private.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one:
            one.bind(("kat0", 0))
            mac = one.getsockname()[4]
        frame = mac + _FRAME_SOURCE + (b"\x08\x00" if flow.version == 4 else b"\x86\xdd")
    out = load_classifier(
        programs.to_wire(flow, device.index, mark=request.mark, neighbours=device.arp),
        "netkat_out",
    )
    stack.callback(os.close, out)
    into = _into(flow, private.veth, frame)
    stack.callback(os.close, into)
    attached = IngressPrograms(tcx=tcx)
    stack.callback(attached.detach)
    attached.to_own(out, private.veth)
    attached.to_device(into, device.index)
    return attached


def _into(flow: CaughtFlow, veth: int, frame: bytes) -> int:
    """Load the program at the device; the quick helper where there is one, and a MAC header."""
    if not frame:
        with contextlib.suppress(KernelError):
            program = programs.to_private(flow, veth, helper=assembler.REDIRECT_PEER)
            return load_classifier(program, "netkat_in")
    program = programs.to_private(flow, veth, frame=frame, helper=assembler.REDIRECT)
    return load_classifier(program, "netkat_in")
