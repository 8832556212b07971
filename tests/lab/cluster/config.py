"""Names, addresses and folders of the lab: everything that `down` has to take away again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("EBPFNET_LAB_CACHE", "/var/cache/kubectl-ebpfnet"))
STATE = Path(os.environ.get("EBPFNET_LAB_STATE", "/run/kubectl-ebpfnet-lab"))
VERSION = "1.20.2"
RECIPE = 2
"""Raised when the build changes, so that what an older one built is not used."""
BINARIES = CACHE / f"kubernetes-{VERSION}-r{RECIPE}"

BRIDGE = "ebl0"
BRIDGE_ADDRESS = "172.30.0.1"
API_SERVER = f"https://{BRIDGE_ADDRESS}:6443"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
WORLD_NETNS = "ebl-world"
WORLD_NODE_ADDRESS = "172.30.0.200"
WORLD_ADDRESS = "1.1.1.1"
LB_LOCAL_ADDRESS = "172.30.0.241"
LB_CLUSTER_ADDRESS = "172.30.0.242"
"""Of Services web-lb-local and web-lb-cluster: on the wire's subnet, but nobody's own."""
UDP_LOCAL_ADDRESS = "172.30.0.239"
UDP_CLUSTER_ADDRESS = "172.30.0.240"
"""The same of udp-lb-local and udp-lb-cluster."""
LB_ADDRESSES = (LB_LOCAL_ADDRESS, LB_CLUSTER_ADDRESS, UDP_LOCAL_ADDRESS, UDP_CLUSTER_ADDRESS)
UDP_PORT, UDP_TARGET_PORT = 90, 8081
"""What the UDP Services listen on, and their pod: the latter agnhost's own."""
LB_POOL = tuple(f"172.30.0.{number}" for number in range(243, 251))
"""What other Services of type LoadBalancer get (cloud.py)."""

ADMIN_CONFIG = STATE / "admin.conf"
SRE_CONFIG = STATE / "sre.conf"
NOBODY_CONFIG = STATE / "nobody.conf"


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the lab.

    Attributes:
        name: as in Kubernetes.
        number: last digits of its addresses.
        address: InternalIP.
        pod_cidr: what its pods get their addresses from.
        router: address of cilium_host, the pods' gateway.
        attach: `tc` or `tcx`: how BPF programs are attached there.
    """

    name: str
    number: int
    address: str
    pod_cidr: str
    router: str
    attach: str

    @property
    def netns(self) -> str:
        """Name under /run/netns of the machine."""
        return f"ebl-{self.name}"

    @property
    def state(self) -> Path:
        """Everything of this node on disk."""
        return STATE / self.name


NODES = (
    Node("node1", 1, "172.30.0.11", "10.244.1.0/24", "10.244.1.1", "tc"),
    Node("node2", 2, "172.30.0.12", "10.244.2.0/24", "10.244.2.1", "tcx"),
    # Neither node2 nor node3 has a pod of Deployment web. With the one by tcx and the other by tc,
    # what is sent to a LoadBalancer starts beside, and meets, both ways of attaching.
    Node("node3", 3, "172.30.0.13", "10.244.3.0/24", "10.244.3.1", "tc"),
)
ONE_OF_EACH = NODES[:2]
"""One node of each way of attaching: enough for tests in which a third adds nothing but time."""
