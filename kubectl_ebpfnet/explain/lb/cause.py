"""A likely cause of a node that does not behave as its Service asks, and where it is looked for."""

from __future__ import annotations

from kubectl_ebpfnet.explain.lb.datapath import Balancer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import NodeRow


@dataclass(frozen=True, slots=True)
class Cause:
    """A likely cause and its proof.

    Attributes:
        text: one sentence without its full stop.
        evidence: the proof.
        sure: it concerns this packet; others are reported only where no sure cause is found.
    """

    text: str
    evidence: tuple[Evidence, ...] = ()
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A row whose result contradicts its expectation.

    Attributes:
        cluster: the bundle's indexes.
        service: the probed Service.
        row: one node and one target.
        flow: of the probe's packets.
        backends: endpoints that the node may use.
        balancer: kube-proxy or Cilium on the node.
    """

    cluster: ClusterView
    service: Service
    row: NodeRow
    flow: Flow
    backends: tuple[ServiceEndpoint, ...]
    balancer: Balancer

    @property
    def node(self) -> NodeView:
        """The node that was probed."""
        return self.cluster.node(self.row.node)

    @property
    def title(self) -> str:
        """The probe's destination: `10.0.0.1:80`."""
        return endpoint_text(self.flow.destination, self.flow.destination_port)

    def translated(self, backend: ServiceEndpoint) -> Flow:
        """Return the packet after destination NAT to a backend."""
        return self.flow.with_destination(backend.address, backend.port)
