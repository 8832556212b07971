"""What `doctor` knows of a cluster before it looks at a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.doctor import CiliumFound, Connection
from kubectl_ebpfnet.model.evidence import Place, Record
from kubectl_ebpfnet.model.kube import Node, Pod
from kubectl_ebpfnet.model.rights import Right

NODE_POD = "--node-access pod"


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """Facts that hold for every node.

    Attributes:
        agents: Cilium's agent pods, by node.
        records: the records of each place; there may be thousands of places.
        standing: who let the node pod of a node stay, by node: `kept` or `installed`.
        nodes: the API's objects, by name.
    """

    cluster: ClusterView
    connection: Connection
    rights: tuple[Right, ...]
    cilium: CiliumFound
    agents: Mapping[str, Pod]
    records: Mapping[Place, Sequence[Record]]
    standing: Mapping[str, str]
    nodes: Mapping[str, Node]

    @property
    def live(self) -> bool:
        """A cluster was asked, and not a capture read."""
        return bool(self.connection.server)

    @property
    def lacking_to_deploy(self) -> tuple[str, ...]:
        """Rights that node pods need and this user lacks, in words."""
        denied = (r for r in self.rights if "node-pod" in r.uses and r.allowed is False)
        return tuple(right.words for right in denied)
