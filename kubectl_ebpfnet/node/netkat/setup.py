"""Set up the path for one peer or one listener: hold ports, configure the private netns, attach the
programs.

The order matters: the port is held before a program catches packets, the veth exists before a
program names it, and the programs are attached before the first packet is sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.bpf import assembler
from kubectl_ebpfnet.node.bpf.load import create_array, load_classifier
from kubectl_ebpfnet.node.netkat import ports
from kubectl_ebpfnet.node.netkat.private_netns import DEVICE, PrivateNetns
from kubectl_ebpfnet.node.netkat.redirect import programs
from kubectl_ebpfnet.node.netkat.redirect.attach import IngressPrograms
from kubectl_ebpfnet.node.netkat.redirect.flow import CaughtFlow, checksum_neutral
from kubectl_ebpfnet.node.netkat.route import (
    CopiedRoute,
    PeerRoute,
    route_to_clients,
    route_to_peer,
)

# The next hop of a listener whose next hop is given by its MAC: nobody else has this address.
_NAMELESS = {4: "198.19.255.254", 6: "2001:2:0:ffff::fffe"}
_FRAME_SOURCE = bytes.fromhex("020000000001")


@dataclass(frozen=True, slots=True)
class NetkatSetup:
    """A path that is ready for use.

    Attributes:
        netns: the private network namespace.
        route: the host's route that the path follows.
        first_port: the first held local port.
        peer_address: the peer's address inside of the private netns; "" for a listener.
        real_addresses: stand-in address → the peer's own address, both packed; empty without a
            stand-in.
        programs: attached to the device.
    """

    netns: PrivateNetns
    route: PeerRoute
    first_port: int
    peer_address: str
    real_addresses: dict[bytes, bytes]
    programs: IngressPrograms


def set_up_for_peer(
    stack: contextlib.ExitStack,
    request: Request,
    peer: str,
    scope: int = 0,
    *,
    connections: int = 1,
) -> NetkatSetup:
    """Set up the path to a peer.

    Args:
        stack: takes the path down.
        request: netkat's options.
        peer: address of the peer, without a scope.
        scope: ifindex of a link-local address's device, 0 for other addresses.
        connections: how many will be made; their local ports follow on `first_port`.

    Raises:
        Unsupported, KernelError: no route, no port, no rights; the modules of this folder tell
            which.
    """
    route = route_to_peer(request, peer, scope)
    version, packed = ipaddress.ip_address(peer).version, ipaddress.ip_address(peer).packed
    binding = (version, request.udp, route.sources[0])
    if connections > 1:
        held = ports.hold_range(*binding, scope, connections)
    elif request.command and not request.source_port:
        held = ports.hold_range(*binding, scope)
    else:
        held = ports.hold(*binding, request.source_port, scope)
    stack.callback(held.release)
    stand_in = checksum_neutral(packed)
    peer_address = str(ipaddress.ip_address(stand_in))
    notes = 0
    if request.command:  # its connections may use either address of the peer
        notes = create_array(held.last - held.first + 1, "netkat_notes")
        stack.callback(os.close, notes)
    # Without a next hop's address nothing is resolved by ARP or NDP.
    no_gateway = bool(route.gateway_mac) or not route.device.arp
    prefix = ipaddress.ip_address(peer_address).max_prefixlen
    gateway = "" if no_gateway else route.gateway or peer
    routes = [
        CopiedRoute(f"{peer_address}/{prefix}", gateway, route.mtu),
        CopiedRoute(f"{peer}/{prefix}", "" if no_gateway else route.gateway, route.mtu),
    ]
    flow = CaughtFlow(
        version, _protocol(request),
        (ipaddress.ip_address(route.sources[0]).packed,), (held.first, held.last),
        packed, request.port, stand_in, notes,
    )  # fmt: skip
    netns = PrivateNetns()
    stack.callback(os.close, netns.fd)
    neighbours: dict[str, bytes] = {}
    if route.device.mac and route.gateway_mac:
        neighbours = dict.fromkeys((peer_address, peer), route.gateway_mac)
    # Only a program chooses a port by itself.
    port_range = (held.first, held.last) if request.command else None
    netns.add_veth(route.device)
    netns.configure(route, routes, neighbours, port_range)
    attached = _attach_programs(stack, request, route, flow, netns)
    real_addresses = {stand_in: packed}
    return NetkatSetup(netns, route, held.first, peer_address, real_addresses, attached)


def set_up_for_clients(stack: contextlib.ExitStack, request: Request, address: str) -> NetkatSetup:
    """Set up the path of a listener. Raises as `set_up_for_peer`.

    Args:
        stack: takes the path down.
        request: netkat's options.
        address: to listen on.
    """
    route = route_to_clients(request, address)
    version = ipaddress.ip_address(address).version
    held = ports.hold(version, request.udp, address, request.port)
    stack.callback(held.release)
    sources = tuple(ipaddress.ip_address(source).packed for source in route.sources)
    flow = CaughtFlow(version, _protocol(request), sources, (held.first, held.last))
    routes, neighbours = list(route.routes), {}
    if route.gateway_mac:
        neighbours = {_NAMELESS[version]: route.gateway_mac}
        routes = [CopiedRoute("", _NAMELESS[version]) if not r.prefix else r for r in routes]
    elif not route.device.arp:
        routes = [CopiedRoute(r.prefix, "", r.mtu) for r in routes]
    netns = PrivateNetns()
    stack.callback(os.close, netns.fd)
    netns.add_veth(route.device)
    netns.configure(route, routes, neighbours)
    attached = _attach_programs(stack, request, route, flow, netns)
    return NetkatSetup(netns, route, held.first, "", {}, attached)


def _protocol(request: Request) -> int:
    return socket.IPPROTO_UDP if request.udp else socket.IPPROTO_TCP


def _attach_programs(
    stack: contextlib.ExitStack,
    request: Request,
    route: PeerRoute,
    flow: CaughtFlow,
    netns: PrivateNetns,
) -> IngressPrograms:
    """Connect the private netns and the device by the two programs."""
    device = route.device
    frame = b""
    if not device.mac:
        with netns.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((DEVICE, 0))
            mac = sock.getsockname()[4]
        frame = mac + _FRAME_SOURCE + (b"\x08\x00" if flow.version == 4 else b"\x86\xdd")
    outgoing = load_classifier(
        programs.to_wire(flow, device.index, mark=request.mark, neighbours=device.arp), "netkat_out"
    )
    stack.callback(os.close, outgoing)
    incoming = _load_incoming(flow, netns.veth, frame)
    stack.callback(os.close, incoming)
    attached = IngressPrograms()
    stack.callback(attached.detach)
    attached.attach_to_veth(outgoing, netns.veth)
    attached.attach_to_device(incoming, device.index)
    return attached


def _load_incoming(flow: CaughtFlow, veth: int, frame: bytes) -> int:
    """Load the device's program, with the faster helper if the kernel has it (MAC header only)."""
    if not frame:
        with contextlib.suppress(KernelError):
            program = programs.to_private(flow, veth, helper=assembler.REDIRECT_PEER)
            return load_classifier(program, "netkat_in")
    program = programs.to_private(flow, veth, frame=frame, helper=assembler.REDIRECT)
    return load_classifier(program, "netkat_in")
