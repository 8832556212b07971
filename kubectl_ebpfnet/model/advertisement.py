"""What Cilium advertises by BGP of Services.

Source: Cilium pkg/k8s/apis/cilium.io/v2/bgp_advert_types.go (v2alpha1 before 1.18).
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.policy import Selector

OF_LOAD_BALANCER = "LoadBalancerIP"
"""The addresses of a Service's status.loadBalancer."""


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One advertisement of Services in a CiliumBGPAdvertisement.

    Attributes:
        name: of the object.
        selector: of Services by their labels; None selects none.
        addresses: `LoadBalancerIP`, `ExternalIP`, `ClusterIP`.
        span: where the object stands in its record.
    """

    name: str
    selector: Selector | None
    addresses: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False)
