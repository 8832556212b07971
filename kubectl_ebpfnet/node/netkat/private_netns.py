"""The private network namespace: a veth with the node's address.

The namespace has no name: a descriptor keeps it, and both ends of the veth end with it, however the
process ends (network_namespaces(7)). Sources: unshare(2), veth(4), rtnetlink(7).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from pyroute2.netlink.rtnl import RTM_GETLINK

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netkat import changes, sysctls
from kubectl_ebpfnet.node.netkat.route import CopiedRoute, HostDevice, PeerRoute
from kubectl_ebpfnet.node.netlink.rtnetlink import Change, change, get

DEVICE = "kat0"
_LOOPBACK = 1  # its ifindex in every namespace
_PORT_RANGE = "net/ipv4/ip_local_port_range"


class PrivateNetns:
    """A namespace without a name.

    Attributes:
        fd: the descriptor that keeps it.
        veth: ifindex of the veth's end in the host.
        index: ifindex of the end in the namespace.
    """

    def __init__(self) -> None:
        """Create an empty namespace. Raises KernelError (EPERM without CAP_SYS_ADMIN)."""
        self.veth = self.index = 0
        self.fd = netns.empty()

    def inside(self) -> AbstractContextManager[None]:
        """Run the block in the namespace: sockets created there stay there."""
        return netns.inside(f"/proc/self/fd/{self.fd}")

    def add_veth(self, device: HostDevice) -> None:
        """Add the veth, with MAC and MTU of a device of the host.

        Call it in the host's namespace. Raises KernelError.
        """
        # A netkit device in L3 mode has a MAC of zeros. The kernel numbers the name, since a pid in
        # it would clash between pid namespaces.
        mac = device.mac if any(device.mac) else b""
        change([changes.veth("netkat%d", DEVICE, self.fd, device.mtu, mac)])
        with self.inside():
            link = get(RTM_GETLINK, "look at the veth", [("IFLA_IFNAME", DEVICE)])
        self.index, self.veth = link["index"], link.get_attr("IFLA_LINK") or 0
        # The host's end first: the other end sends as soon as it is up with a carrier.
        change(changes.up(self.veth))

    def configure(
        self,
        route: PeerRoute,
        routes: Iterable[CopiedRoute],
        neighbours: dict[str, bytes],
        port_range: tuple[int, int] | None = None,
    ) -> None:
        """Add addresses, routes and neighbours.

        Args:
            route: has the device and the source addresses.
            routes: to the peer, or of a listener.
            neighbours: address → MAC of permanent neighbours.
            port_range: local ports for programs that do not choose one.

        Raises:
            KernelError: the kernel refuses one of them.
        """
        with self.inside():
            _write_settings(port_range)
            change(self._configuration(route, routes, neighbours))

    def _configuration(
        self, route: PeerRoute, routes: Iterable[CopiedRoute], neighbours: dict[str, bytes]
    ) -> list[Change]:
        index, source = self.index, route.sources[0]
        version = 6 if ":" in source else 4
        changed = [*changes.up(_LOOPBACK), *changes.up(index, arp=route.device.arp)]
        changed += [changes.address(index, address) for address in route.sources]
        changed += [
            changes.route(version, r.prefix, r.gateway, index, source, mtu=r.mtu) for r in routes
        ]
        return changed + [changes.neighbour(index, *pair) for pair in neighbours.items()]


def _write_settings(port_range: tuple[int, int] | None) -> None:
    """Write the sysctls of the calling thread's network namespace.

    ICMP errors come from routers that the private netns has no route to: a strict rp_filter,
    which a new netns inherits, would drop them. Sockets of netkat are bound to their one port; the
    range is for programs that choose a port by themselves.
    """
    settings = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", DEVICE)}
    # A program's orphaned socket must not keep the namespace for minutes.
    settings["net/ipv4/tcp_orphan_retries"] = "1"
    if port_range:
        settings[_PORT_RANGE] = f"{port_range[0]} {port_range[1]}"
    error = sysctls.write(settings).get(_PORT_RANGE)
    if error is not None and port_range and port_range[0] != port_range[1]:
        raise KernelError(
            f"set the port range of the private netns: {error.strerror}", error.errno or 0,
            hint="--exec needs to write to /proc/sys, which a privileged pod can",
        )  # fmt: skip
