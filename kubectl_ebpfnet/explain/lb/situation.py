"""The context of an expectation, and the endpoints that a node may use.

kube-proxy's pkg/proxy/topology.go and KEP-1669: ready endpoints; where there are none, terminating
ones that still serve. Cilium does the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kubectl_ebpfnet.explain.lb.datapath import CILIUM, Balancer
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Node, Pod, Service, ServiceEndpoint
from kubectl_ebpfnet.model.probe import Endpoints, How, ProbeTarget

_TERMINATING_SINCE, _TERMINATING_MAYBE = (1, 26), (1, 22)


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The context of an expectation: a node, a target, and what is known of them.

    Attributes:
        service: the Service.
        target: one of its addresses and ports.
        node: the node that is probed.
        from_nodes: the nodes that the probe may come from.
        endpoints: of the whole Service; None when no EndpointSlice could be read.
        pods: to find ready ones where a Service publishes endpoints that are not ready.
        balancer: kube-proxy or Cilium on the node.
        how: the route of the probe.
        policies: `Kind namespace/name` of network policies that may select the backends.
        silence_counts: silence proves that the node does not serve. A UDP server may leave a probe
            unanswered; its silence counts where the same port answered elsewhere, where there is
            no endpoint that could be silent, or where the node's own tables prove the loss.
        answers_in_tunnel: what backends answer to a node's address comes back in the tunnel, and
            so into the sender's own stack.
    """

    service: Service
    target: ProbeTarget
    node: Node
    from_nodes: tuple[Node, ...]
    endpoints: tuple[ServiceEndpoint, ...] | None
    pods: tuple[Pod, ...]
    balancer: Balancer
    how: How = How.NEXT_HOP
    policies: tuple[str, ...] = ()
    silence_counts: bool = True
    answers_in_tunnel: bool = False

    @property
    def local_policy(self) -> bool:
        """externalTrafficPolicy is Local."""
        return self.service.external_traffic_policy == "Local"

    @property
    def of_port(self) -> tuple[ServiceEndpoint, ...]:
        """The endpoints of the target's port, in its IP version."""
        return tuple(
            e
            for e in self.endpoints or ()
            if (e.port_name, e.protocol) == (self.target.port_name, self.target.protocol)
            and e.address.version == self.target.version
        )


def endpoints_of(context: NodeContext) -> Endpoints:
    """Count the endpoints of the target's port by distinct address."""
    ready = [e for e in context.of_port if e.ready]
    leaving = [e for e in context.of_port if ending(e)]
    idle = [e for e in context.of_port if not e.ready and not ending(e)]
    return Endpoints(
        local=count(on_node(ready, context.node)),
        total=count(ready),
        local_terminating=count(on_node(leaving, context.node)),
        terminating=count(leaving),
        local_not_ready=count(on_node(idle, context.node)),
    )


def usable(context: NodeContext) -> tuple[ServiceEndpoint, ...]:
    """Return the endpoints that the node may send the client to."""
    near = on_node(context.of_port, context.node) if context.local_policy else list(context.of_port)
    ready = [e for e in near if e.ready]
    if not ready and uses_terminating(context) is not False:
        ready = [e for e in near if ending(e)]
    return tuple(ready)


def uses_terminating(context: NodeContext) -> bool | None:
    """Tell whether the node uses terminating endpoints: Cilium does; kube-proxy does since 1.26,
    and behind a feature gate since 1.22 (None: undecided)."""
    found = re.match(r"v?([0-9]{1,9})\.([0-9]{1,9})", context.node.version)
    if context.balancer.name == CILIUM:
        return True
    if found is None:  # the node does not say its version
        return None
    version = (int(found[1]), int(found[2]))
    if version >= _TERMINATING_SINCE:
        return True
    return None if version >= _TERMINATING_MAYBE else False


def ending(endpoint: ServiceEndpoint) -> bool:
    """Tell whether an endpoint still serves while it terminates."""
    return not endpoint.ready and endpoint.serving and endpoint.terminating


def on_node(endpoints: Iterable[ServiceEndpoint], node: Node) -> list[ServiceEndpoint]:
    """Return the endpoints on a node."""
    return [e for e in endpoints if e.node == node.name]


def count(endpoints: Iterable[ServiceEndpoint]) -> int:
    """Count endpoints by distinct address: an endpoint of several ports counts once."""
    return len({e.address for e in endpoints})
