"""The look-up of a frontend, as the place that looks it up does it.

Source: Cilium bpf/lib/lb.h (lb4_lookup_service), bpf/bpf_sock.c (sock4_wildcard_lookup,
sock4_skip_xlate).
"""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.cilium import HOST, REMOTE_NODE, Frontend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import TCP, UDP, Address

_NODES = frozenset({HOST, REMOTE_NODE, 7})
"""7 is kube-apiserver, where that runs on a node (pkg/identity/numericidentity.go)."""
_NODE_SCOPE = range(2 << 24, 3 << 24)
"""Identities of nodes by their labels (enable-node-selector-labels)."""


class Lookup(StrEnum):
    """Where Cilium looks a destination up.

    At sockets an address of a node also finds the wildcard of a NodePort, `0.0.0.0:PORT`; a
    program at a device looks up the address alone. What comes from outside is given the external
    scope, everything else the internal one, where a frontend has both.
    """

    HOST_SOCKET = "host-socket"
    POD_SOCKET = "pod-socket"
    POD = "pod"
    DEVICE = "device"

    @property
    def at_socket(self) -> bool:
        """It is at connect()."""
        return self in (Lookup.HOST_SOCKET, Lookup.POD_SOCKET)


def first_lookup(node: NodeView, host_network: bool, protocol: int = TCP) -> Lookup:
    """Return where a packet of a pod is looked up first.

    Args:
        node: the pod's node.
        host_network: the pod shares the node's network namespace.
        protocol: IANA number; the programs at sockets know TCP and UDP alone.
    """
    config = node.config
    if host_network:
        return Lookup.HOST_SOCKET
    in_pods = config.socket_lb and not config.socket_lb_host_only and protocol in (TCP, UDP)
    return Lookup.POD_SOCKET if in_pods else Lookup.POD


@dataclass(frozen=True, slots=True)
class Search:
    """A destination, and the place that looks it up."""

    cluster: ClusterView
    node: NodeView
    address: Address
    port: int | None
    protocol: int
    at: Lookup

    def among(self, table: Fact[Frontend]) -> Frontend | None:
        """Return the frontend of a table that the place finds and translates."""
        offered = self._offered(table)
        exact = [f for f in offered if f.address == self.address and not self._skipped(f)]
        hits = exact or [f for f in offered if f.address.is_unspecified and self._by_wildcard(f)]
        if self.port is None and len({f.port for f in hits}) != 1:
            return None
        outside = self.at is Lookup.DEVICE
        if outside:
            hits = [f for f in hits if not f.internal]
        return max(hits, key=lambda f: (f.internal, f.protocol is not None), default=None)

    def passed_over(self, table: Fact[Frontend]) -> Frontend | None:
        """Return the frontend of a table that the place finds and leaves alone."""
        offered = self._offered(table)
        return next((f for f in offered if f.address == self.address and self._skipped(f)), None)

    def _offered(self, table: Fact[Frontend]) -> list[Frontend]:
        every = self.port is None
        at_port = self.node[table].facts if every else self.node.having(table, self.port, "port")
        return [
            f
            for f in at_port
            if f.port
            and f.protocol in (None, self.protocol)
            and f.address.version == self.address.version
        ]

    def _skipped(self, frontend: Frontend) -> bool:
        """Tell whether a socket leaves the frontend alone: it is not the node's own address."""
        outside = frontend.type in ("ExternalIPs", "HostPort")
        return self.at.at_socket and outside and not self._own

    def _by_wildcard(self, frontend: Frontend) -> bool:
        if not self.at.at_socket or frontend.type not in ("NodePort", "HostPort", ""):
            return False
        if self.address.is_loopback:
            return self.at is Lookup.HOST_SOCKET
        # The wildcard of a port outside of the NodePorts' range serves the node itself alone.
        return self._own or (self._of_a_node and frontend.type != "HostPort")

    @property
    def _own(self) -> bool:
        """The address is the node's own: by the ipcache, as the program at the socket tells."""
        if self._identity == HOST or self.address in self.node.own_addresses:
            return True
        return self.cluster.node_of(self.address) == self.node.name

    @property
    def _of_a_node(self) -> bool:
        # What is no int is looked for in each of a range's 16 million.
        known = self._identity
        if known is not None and (known in _NODES or known in _NODE_SCOPE):
            return True
        return self.address in self.cluster.node_addresses

    @property
    def _identity(self) -> int | None:
        entry = self.node.ipcache_of(self.address)
        return entry.identity if entry is not None else None
