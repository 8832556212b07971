"""The private network namespace: a veth that wears the node's address.

Nothing in it has a name: a descriptor holds it, and its end takes the veth (both ends) with it,
however the process ends (network_namespaces(7)). Sources: unshare(2), veth(4), rtnetlink(7),
Linux include/uapi/linux/if_addr.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node import netns
from kubectl_ebpfnet.node.kat import sysctls
from kubectl_ebpfnet.node.kat.nextway import Route, Way

DEVICE = "kat0"
_CLONE_NEWNET = 0x40000000
_NODAD, _NOPREFIXROUTE = 0x02, 0x200
_ONLINK = 4
_NUD_PERMANENT = 0x80
_NO_LINK_LOCAL = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
_PORT_RANGE = "net/ipv4/ip_local_port_range"
_libc = ctypes.CDLL(None, use_errno=True)


class PrivateNetns:
    """A namespace without a name.

    Attributes:
        fd: what holds it.
        veth: ifindex of the veth's end in the host.
        index: ifindex of the end in here.
    """

    def __init__(self) -> None:
        """Make it, empty. Raises KernelError (EPERM without CAP_SYS_ADMIN)."""
        self.veth = self.index = 0
        self.fd = _new()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Do the block in it: sockets that are made there stay there."""
        with netns.inside(f"/proc/self/fd/{self.fd}"):
            yield

    def furnish(
        self,
        host: IPRoute,
        way: Way,
        routes: Iterable[Route],
        neighbours: dict[str, bytes],
        port_range: tuple[int, int] | None = None,
    ) -> None:
        """Lay the veth, and give it addresses, routes and neighbours.

        Args:
            host: a netlink socket of the host's namespace.
            way: its device and sources.
            routes: to the peer, or of a listener.
            neighbours: address → MAC of those that need not be asked for.
            port_range: local ports for programs that do not choose one.

        Raises:
            KernelError: the kernel refuses one of them.
        """
        try:
            self._lay(host, way)
            with self.inside():
                _settings(port_range)
                own = IPRoute()
            with own:
                self._dress(own, way, routes, neighbours)
        except NetlinkError as error:
            raise KernelError(
                f"set up the private netns: {error.args[1]}", error.code,
                hint="CAP_NET_ADMIN allows it" if error.code == 1 else "",
            ) from None  # fmt: skip

    def _lay(self, host: IPRoute, way: Way) -> None:
        device = way.device
        there: dict[str, Any] = {"ifname": DEVICE, "net_ns_fd": self.fd, "mtu": device.mtu}
        if any(device.mac):  # a netkit device in L3 mode says it has one of zeros
            there["address"] = device.mac.hex(":")
        # One name a process would clash between pid namespaces: the kernel counts.
        host.link("add", ifname="netkat%d", kind="veth", mtu=device.mtu, peer=there)
        with self.inside():
            own = IPRoute()
        try:
            link = own.link("get", ifname=DEVICE)[0]
            self.index, self.veth = link["index"], link.get_attr("IFLA_LINK")
        finally:
            own.close()
        host.link("set", index=self.veth, IFLA_AF_SPEC=_NO_LINK_LOCAL)
        host.link("set", index=self.veth, state="up")

    def _dress(
        self, own: IPRoute, way: Way, routes: Iterable[Route], neighbours: dict[str, bytes]
    ) -> None:
        index, first = self.index, ipaddress.ip_address(way.sources[0])
        family = int(socket.AF_INET if first.version == 4 else socket.AF_INET6)
        own.link("set", index=1, state="up")
        own.link("set", index=index, IFLA_AF_SPEC=_NO_LINK_LOCAL)
        own.link("set", index=index, state="up", **({} if way.device.arp else {"arp": False}))
        for address in way.sources:
            own.addr(
                "add", index=index, family=family, address=address,
                prefixlen=first.max_prefixlen,
                flags=_NOPREFIXROUTE | (_NODAD if first.version == 6 else 0),
            )  # fmt: skip
        for route in routes:
            self._route(own, family, route, way.sources[0])
        for address, mac in neighbours.items():
            own.neigh(
                "add", family=family, dst=address, ifindex=index, state=_NUD_PERMANENT,
                lladdr=mac.hex(":"),
            )  # fmt: skip

    def _route(self, own: IPRoute, family: int, route: Route, source: str) -> None:
        more: dict[str, Any] = {"family": family, "oif": self.index, "prefsrc": source}
        if route.prefix:
            more["dst"] = route.prefix
        else:
            more["dst"] = "0.0.0.0/0" if family == socket.AF_INET else "::/0"
        if route.gateway:
            more["flags"] = _ONLINK
            if (":" in route.gateway) != (family == socket.AF_INET6):
                more["via"] = {"family": socket.AF_INET6, "addr": route.gateway}
            else:
                more["gateway"] = route.gateway
        if route.mtu:
            more["metrics"] = {"attrs": [("RTAX_MTU", route.mtu)]}
        own.route("add", **more)


def _new() -> int:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            code = ctypes.get_errno()
            raise KernelError(
                f"make a network namespace: {os.strerror(code)}", code,
                hint="CAP_SYS_ADMIN allows it",
            )  # fmt: skip
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # there is no way back into the host
    finally:
        os.close(home)


def _settings(port_range: tuple[int, int] | None) -> None:
    """Settings of the namespace that the calling thread is in.

    ICMP errors come from routers that the private netns has no route to: a strict rp_filter,
    which a new netns inherits, would drop them. Sockets of ours are bound to their one port; a
    range is for programs that choose one by themselves.
    """
    wanted = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", DEVICE)}
    # A program's socket that cannot send any more must not hold the namespace for minutes.
    wanted["net/ipv4/tcp_orphan_retries"] = "1"
    if port_range:
        wanted[_PORT_RANGE] = f"{port_range[0]} {port_range[1]}"
    error = sysctls.write(wanted).get(_PORT_RANGE)
    if error is not None and port_range and port_range[0] != port_range[1]:
        raise KernelError(
            f"set the port range of the private netns: {error.strerror}", error.errno or 0,
            hint="--exec needs to write to /proc/sys, which a privileged pod can",
        )  # fmt: skip
