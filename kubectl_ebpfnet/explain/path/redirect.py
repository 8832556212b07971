"""A policy's redirection of a packet to an L7 proxy (stages/proxy.py)."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.proxy import EndpointRule


@dataclass
class Redirect:
    """A policy's redirection of a packet to an L7 proxy of its node.

    Attributes:
        node: its name.
        endpoint_id: whose policy.
        direction: `ingress` or `egress`, seen from the endpoint.
        port: of the proxy.
        flow: the packet's, as its sender sent it to the proxy.
        rules: of the policies that make it; () where they are not known.
        title: the proxy in words, once it is known.
        passes: what it lets pass in words, "" where that is not known.
        hop: number of the hop before the packet was handed to the proxy, 0 where it was not.
        unseen: no table shows that the destination answered the proxy.
    """

    node: str
    endpoint_id: int
    direction: str
    port: int
    flow: Flow
    rules: tuple[EndpointRule, ...] = ()
    title: str = "the L7 proxy"
    passes: str = ""
    hop: int = 0
    unseen: bool = False
