"""Whether a rule of a policy is for the protocol and the port of a packet.

Source: Cilium pkg/policy/api/l4.go (PortProtocol: a name is that of a container's port), pkg/policy
(NamedPorts).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.policy.party import NO, YES, Hit
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import ContainerPort
from kubectl_ebpfnet.model.net import SCTP, TCP, UDP, has_ports
from kubectl_ebpfnet.model.policy import PolicyPort, PolicyRule

ANY_PORT = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent.

    Attributes:
        protocol: IANA number.
        port: destination port, or ICMP type; None when not known.
        named: named ports of the pod that receives it, None when not known.
        others: a name may be that of another pod's port, too (egress: pkg/policy, NamedPorts).
    """

    protocol: int
    port: int | None
    named: tuple[ContainerPort, ...] | None = None
    others: bool = False


def port_hit(rule: PolicyRule, traffic: Traffic) -> Hit:
    """Tell whether a rule is for the protocol and the port of a packet."""
    if rule.ports is None:
        return YES
    undecided: Hit | None = None
    for port in rule.ports:
        hit = _port(port, traffic)
        if hit.matches:
            return hit
        if hit.matches is None:
            undecided = hit
    return undecided or (Hit(None, rule.odd_ports) if rule.odd_ports else NO)


def _port(port: PolicyPort, traffic: Traffic) -> Hit:
    of_any = port.protocol is None
    if of_any and traffic.protocol not in (TCP, UDP, SCTP):
        whole = (port.low, port.high) == ANY_PORT and not port.name
        why = "versions of Cilium differ about ICMP where a rule allows every port"
        return Hit(None, why) if whole else NO
    if not of_any and port.protocol != traffic.protocol:
        return NO
    if port.name:
        return _named_port(port.name, traffic)
    if (port.low, port.high) == ANY_PORT:
        return YES
    if traffic.port is None:
        if not has_ports(traffic.protocol):
            return NO
        return Hit(None, "it depends on the port: give one, as in 1.1.1.1:80")
    return Hit(port.low <= traffic.port <= port.high)


def _named_port(name: str, traffic: Traffic) -> Hit:
    if traffic.named is None:
        return Hit(None, f"the named ports of the pod that receives it were not read ({name})")
    numbers = {
        each.number
        for each in traffic.named
        if each.name == name and each.protocol == traffic.protocol
    }
    if traffic.port is None and numbers:
        return Hit(None, "it depends on the port: give one, as in 1.1.1.1:80")
    if traffic.port in numbers:
        return YES
    if traffic.others and not numbers:
        return Hit(None, f"which numbers the port name {name} has in other pods was not read")
    return NO
