"""Which of Cilium's advertisements by BGP select a Service's address of a load-balancer.

Source: Cilium pkg/bgp/manager/reconciler/service.go (serviceLabelSet; a loadBalancerClass of
somebody else is left alone).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.policy.party import Party, selects
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.advertisement import OF_LOAD_BALANCER, Advertisement
from kubectl_ebpfnet.model.kube import Service

RESOURCE = "ciliumbgpadvertisements"
CLASS = "io.cilium/bgp-control-plane"
_OWN_LABELS = "io.kubernetes.service.name", "io.kubernetes.service.namespace"


def selecting(cluster: ClusterView, service: Service) -> list[Advertisement] | None:
    """Return the advertisements that select a Service's addresses of a load-balancer; None where it
    is not known: they were not listed, there are none (the older CiliumBGPPeeringPolicies may be
    used), or a selector is not understood.

    Args:
        cluster: the bundle's indexes.
        service: with such an address.
    """
    every = cluster.kube.advertisements
    if lists.read(cluster, RESOURCE) is None or not every:
        return None
    if service.load_balancer_class not in ("", CLASS):
        return []
    own = zip(_OWN_LABELS, (service.name, service.namespace), strict=True)
    party = Party(frozenset(f"k8s:{key}={text}" for key, text in (*service.labels, *own)))
    meant = [each for each in every if OF_LOAD_BALANCER in each.addresses]
    hits = [(each, selects(each.selector, party)) for each in meant if each.selector is not None]
    found = [each for each, hit in hits if hit.matches]
    return None if not found and any(hit.matches is None for _, hit in hits) else found
