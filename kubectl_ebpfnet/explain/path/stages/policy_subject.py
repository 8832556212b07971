"""Whose policy is asked about which packet."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.state import Where
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, has_ports
from kubectl_ebpfnet.model.path import Packet

ICMP_ECHO_REQUEST = {1: 8, 58: 128}
"""With ICMP rules, Cilium's policy maps hold the ICMP type in place of the port."""


@dataclass(frozen=True, slots=True)
class PolicySubject:
    """Whose policy is asked about what.

    Attributes:
        where: of the hop.
        node: of the endpoint.
        endpoint_id: of the endpoint.
        name: `endpoint 12`, or `the host endpoint 12`.
        direction: `ingress` or `egress`, seen from the endpoint.
        remote: the other side.
        packet: as the policy sees it.
        asked: the Service's address and port that the packet was sent to, None where it is none, or
            not translated yet.
    """

    where: Where
    node: NodeView
    endpoint_id: int
    name: str
    direction: str
    remote: policy.Remote
    packet: Packet
    asked: tuple[Address, int] | None = None

    @property
    def port(self) -> int | None:
        """The destination's port, or the ICMP type, that policy maps hold."""
        flow = self.packet.flow
        if has_ports(flow.protocol):
            return flow.destination_port
        return ICMP_ECHO_REQUEST.get(flow.protocol)

    @property
    def what(self) -> str:
        """`80/TCP`, or the protocol's name."""
        protocol, port = self.packet.flow.protocol, self.port
        if port is None or not has_ports(protocol):
            return policy.ports_text(protocol, policy.ANY_PORT)
        return policy.ports_text(protocol, (port, port))

    @property
    def side(self) -> str:
        """`to` or `from`."""
        return "to" if self.direction == "egress" else "from"
