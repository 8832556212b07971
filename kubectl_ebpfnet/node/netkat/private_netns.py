"""The private network namespace: a veth that wears the node's address.

Nothing in it has a name: a descriptor holds it, and its end takes the veth (both ends) with it,
however the process ends (network_namespaces(7)). Sources: unshare(2), veth(4), rtnetlink(7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netkat import changes, sysctls
from kubectl_ebpfnet.node.netkat.route import CopiedRoute, HostDevice, PeerRoute
from kubectl_ebpfnet.node.netlink.message import (
    NETLINK_ROUTE,
    Change,
    answers,
    attribute,
    attributes_of,
    change,
    number,
)

DEVICE = "kat0"
_LOOPBACK = 1  # its ifindex in every namespace
_GETLINK, _IFLA_IFNAME, _IFLA_LINK = 18, 3, 5
_KAT0 = bytes(changes.LINK.size) + attribute(_IFLA_IFNAME, changes.text(DEVICE))
_PORT_RANGE = "net/ipv4/ip_local_port_range"


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
        self.fd = netns.empty()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Do the block in it: sockets that are made there stay there."""
        with netns.inside(f"/proc/self/fd/{self.fd}"):
            yield

    def lay(self, device: HostDevice) -> None:
        """Lay the veth, in the likeness of a device of the host.

        To be called in the host's namespace. Raises KernelError.
        """
        # A netkit device in L3 mode says that it has a MAC of zeros. One name a process would
        # clash between pid namespaces: the kernel counts.
        mac = device.mac if any(device.mac) else b""
        change([changes.veth("netkat%d", DEVICE, self.fd, device.mtu, mac)])
        with self.inside():
            link = next(answers(NETLINK_ROUTE, _GETLINK, 0, _KAT0, "look at the veth"))
            self._read(*link)
        # This end first: the other one sends at once when it is taken up with a carrier.
        change(changes.up(self.veth))

    def furnish(
        self,
        way: PeerRoute,
        routes: Iterable[CopiedRoute],
        neighbours: dict[str, bytes],
        port_range: tuple[int, int] | None = None,
    ) -> None:
        """Give it addresses, routes and neighbours.

        Args:
            way: its device and sources.
            routes: to the peer, or of a listener.
            neighbours: address → MAC of those that need not be asked for.
            port_range: local ports for programs that do not choose one.

        Raises:
            KernelError: the kernel refuses one of them.
        """
        with self.inside():
            _settings(port_range)
            change(self._dress(way, routes, neighbours))

    def _read(self, data: bytes, start: int, end: int) -> None:
        self.index = changes.LINK.unpack_from(data, start)[2]
        self.veth = number(attributes_of(data[start:end], changes.LINK.size), _IFLA_LINK) or 0

    def _dress(
        self, way: PeerRoute, routes: Iterable[CopiedRoute], neighbours: dict[str, bytes]
    ) -> list[Change]:
        index, source = self.index, way.sources[0]
        version = 6 if ":" in source else 4
        found = [*changes.up(_LOOPBACK), *changes.up(index, arp=way.device.arp)]
        found += [changes.address(index, one) for one in way.sources]
        found += [
            changes.route(version, one.prefix, one.gateway, index, source, mtu=one.mtu)
            for one in routes
        ]
        return found + [changes.neighbour(index, *pair) for pair in neighbours.items()]


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
