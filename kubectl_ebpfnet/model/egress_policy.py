"""Policies of Cilium's egress gateway, as a person writes them.

Sources: Cilium pkg/k8s/apis/cilium.io/v2/cegp_types.go (CiliumEgressGatewayPolicy), up to 1.11
pkg/k8s/apis/cilium.io/v2alpha1/cenp_types.go (CiliumEgressNATPolicy); pkg/egressgateway/policy.go.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.policy import Selector


@dataclass(frozen=True, slots=True)
class EgressSource:
    """Pods that a policy is for: those with these labels, on nodes with these (None for all)."""

    pods: Selector
    nodes: Selector | None = None


@dataclass(frozen=True, slots=True)
class EgressNode:
    """The nodes of which the first, by name, is the gateway.

    Attributes:
        nodes: selects them; None where the address alone says which one.
        address: egressIP, None where the device's first address is taken.
        device: interface, "" where the address or the default route says which one.
    """

    nodes: Selector | None
    address: Address | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """A CiliumEgressGatewayPolicy.

    Attributes:
        kind: of the object.
        name: of the object; it has no namespace.
        sources: pods that it is for, any of them.
        destinations: destinationCIDRs.
        excluded: excludedCIDRs.
        gateways: each pod takes one of them.
        span: the object's place in its record.
    """

    kind: str
    name: str
    sources: tuple[EgressSource, ...]
    destinations: tuple[Network, ...]
    excluded: tuple[Network, ...] = ()
    gateways: tuple[EgressNode, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def title(self) -> str:
        """`CiliumEgressGatewayPolicy egw`."""
        return f"{self.kind} {self.name}"
