"""L7 load-balancers (Gateway, Ingress, CiliumEnvoyConfig): the node's own Envoy takes the traffic
of the Service and chooses by its routes, which no table of the datapath has.

Source: Cilium bpf/lib/l7lb.h and bpf/bpf_lxc.c (a program at a device redirects to the proxy port),
bpf/bpf_sock.c (a socket of the node's own namespace connects to that port on loopback).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel import sockets
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Fix, HopKind, HopPlace, Packet, State

_LABEL = "k8s-app=cilium-envoy"


def to_envoy(walk: PathBuilder, packet: Packet, service: ServiceAddress, where: Where) -> None:
    """Hand the packet to the node's Envoy, where the walk ends.

    Args:
        walk: takes hops and findings.
        packet: for the frontend.
        service: the frontend.
        where: what redirects.
    """
    port = f"proxy port {service.proxy_port}" if service.proxy_port else "its proxy port not known"
    node = where[2]
    walk.hop(
        *where,
        f"{service.title} is an L7 load-balancer: redirected to the Envoy of {node} ({port})",
        State.DERIVED,
        packet,
        service.evidence,
    )
    if not _listens(walk, packet, service, node):
        return
    walk.unknown(
        f"the Envoy of {node} ({port}) answers for {service.title} and chooses a backend by "
        "its own routes, which no record holds",
        Fix(
            "See the Gateway or Ingress behind it, and what its Envoy was told.",
            "kubectl get ciliumenvoyconfigs,gateways,ingresses -A",
        ),
    )


def _listens(walk: PathBuilder, packet: Packet, service: ServiceAddress, node: str) -> bool:
    """Tell whether Envoy is at its port; drop the packet where it is not."""
    if not service.proxy_port:
        return True
    table = walk.cluster.node(node)[q.TCP_LISTENERS]
    if not table.known:
        walk.wanted.append((node, q.TCP_LISTENERS))
        walk.presumed.add(
            f"that the Envoy of {node} listens at port {service.proxy_port} (its sockets)",
            Look.FIRST,
        )
        return True
    takers = sockets.of_local_proxy(table.facts, packet.flow, service.proxy_port).takers
    place = (HopPlace.NODE, node, node, HopKind.SOCKET)
    if takers:
        walk.hop(
            *place, f"Envoy listens at {sockets.text(takers[0])}", State.DERIVED, packet,
            cite.of(table.record, takers[0].span),
        )  # fmt: skip
        return True
    at = endpoint_text(sockets.loopback(packet.flow), service.proxy_port)
    what = f"nothing listens at {at} of {node}"
    walk.drop(
        *place, f"{what}: the Envoy is not there", State.DERIVED, packet, cite.whole(table.record),
        title=f"no Envoy takes the traffic of {service.owner_title} on {node}",
        detail="The agent has given it a proxy port, and no process has it: see the pod of "
        "cilium-envoy there, or, where Envoy is part of the agent, the agent's log.",
        cause=f"{service.title} is an L7 load-balancer, and {what}",
        fix=Fix(
            f"See that Envoy runs on {node}, and its log.",
            f"kubectl get pods -A -l {_LABEL} {commands.pods_on(node)}",
        ),
        object=_pod(walk, node),
    )  # fmt: skip
    return False


def _pod(walk: PathBuilder, node: str) -> str:
    """Return the pod whose Envoy it is, "" where none is recorded."""
    key, _, value = _LABEL.partition("=")
    pods = (p for p in walk.cluster.kube.pods if p.node == node and p.label(key) == value)
    return next((f"Pod {pod.namespace}/{pod.name}" for pod in pods), "")
