"""Why no socket takes a packet, and what to edit: the Service, the program, or nothing yet.

The object is chosen by evidence: the port that the packet has, the ports that the pod's containers
declare, and those at which its processes listen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address

from kubectl_ebpfnet.explain.kernel import sockets as kernel
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Flow, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Fix
from kubectl_ebpfnet.model.shell import word

_NAMED = 5
"""Ports and sockets that a sentence names."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """Why no socket takes the packet, one sentence; what to do; the object to edit, "" for none."""

    cause: str
    fix: Fix
    object: str = ""


@dataclass(frozen=True, slots=True)
class Unmet:
    """A packet that no socket takes.

    Attributes:
        flow: the packet at its end.
        owner: whose network namespace it is: `pod default/web`, `node n1`.
        pod: the pod that it is for, None where it is for none, or is not recorded.
        sockets: all of the namespace that were read; None where they were not.
        service: the frontend that sent it there, None without one.
    """

    flow: Flow
    owner: str
    pod: Pod | None
    sockets: Sequence[Listener] | None
    service: ServiceAddress | None = None

    @property
    def target(self) -> str:
        """`TCP 10.0.0.1:80`."""
        flow = self.flow
        end = endpoint_text(flow.destination, flow.destination_port)
        return f"{protocol_name(flow.protocol)} {end}"


def remedy(unmet: Unmet) -> Remedy:
    """Return why no socket takes a packet, and what to do about it."""
    flow = unmet.flow
    bound = [s for s in unmet.sockets or () if s.port == flow.destination_port and s.peer is None]
    return _bound_otherwise(unmet, bound) if bound else _at_other_ports(unmet)


def _bound_otherwise(unmet: Unmet, bound: Sequence[Listener]) -> Remedy:
    """The port is right, the address or the device of the socket is not."""
    flow, listed = unmet.flow, few(bound, _NAMED, kernel.text)
    version = flow.destination.version
    anywhere = str(IPv4Address(0) if version == 4 else IPv6Address(0))
    cause = f"{unmet.owner} listens on {listed} only"
    text = f"Bind the process to {anywhere} or to {flow.destination}."
    if all(socket.address.is_loopback for socket in bound):
        cause += ", which is reached from inside alone"
    elif not any(_is_of_version(socket, version) for socket in bound):
        cause += f", which takes no IPv{version}"
        text = f"Let the process listen on {anywhere} as well" + (
            ", or clear IPV6_V6ONLY of its socket." if version == 4 else "."
        )
    return Remedy(cause, Fix(text), _title(unmet.pod))


def _is_of_version(socket: Listener, version: int) -> bool:
    return socket.address.version == version and not socket.v6_only


def _at_other_ports(unmet: Unmet) -> Remedy:
    """Nothing is at the port: does the Service name a wrong one, or does the program not run?"""
    flow, pod = unmet.flow, unmet.pod
    listening, declared = _listening(unmet), _declared(unmet)
    known = [f"it listens on {_ports(listening)}"] if listening else []
    if unmet.sockets is not None and not listening:
        known = [f"it listens at no {protocol_name(flow.protocol)} port of {flow.destination}"]
    known += [f"its containers declare {_ports(declared)}"] if declared else []
    nothing = f"nothing of {unmet.owner} {'accepts' if unmet.sockets is None else 'listens'}"
    cause = "; ".join([f"{nothing} at {unmet.target}", *known])
    port = unmet.service.owner_port if unmet.service is not None else None
    service = unmet.service
    if port is not None and service is not None and pod is not None:
        sent = f"{service.owner_title} sends port {port.port} to targetPort {port.target_port}"
        cause = "; ".join([sent, f"{nothing} there", *known])
        is_wrong = flow.destination_port not in declared and (listening or declared)
        if is_wrong and (port.target_port.isdecimal() or not port.target_port):
            return Remedy(
                cause,
                Fix(
                    f"Set targetPort of port {port.port} to {_ports(listening or declared, ' or ')}"
                    f" in Service {service.name}.",
                    f"kubectl edit svc -n {word(service.namespace)} {word(service.name)}",
                ),
                f"Service {service.namespace}/{service.name}",
            )
    if pod is None:
        return Remedy(cause, Fix(f"Start what should listen at {unmet.target} on {unmet.owner}."))
    what = f"Make a process of {unmet.owner} listen at port {flow.destination_port}"
    if listening and port is None:
        what += f", or ask for port {_ports(listening, ' or ')}"
    logs = commands.pod_logs(pod.namespace, pod.name)
    return Remedy(cause, Fix(f"{what}; its log may tell why it does not.", logs), _title(pod))


def _listening(unmet: Unmet) -> list[int]:
    """The ports at which packets to this address meet a socket."""
    sockets = [socket for socket in unmet.sockets or () if socket.peer is None]
    return sorted({s.port for s in sockets if kernel.is_for(s, unmet.flow)})


def _declared(unmet: Unmet) -> list[int]:
    ports = unmet.pod.ports if unmet.pod is not None else ()
    return sorted({port.number for port in ports if port.protocol == unmet.flow.protocol})


def _ports(ports: Collection[int], between: str = ", ") -> str:
    more = [f"{len(ports) - _NAMED} more"] if len(ports) > _NAMED else []
    return between.join([*map(str, sorted(ports)[:_NAMED]), *more])


def _title(pod: Pod | None) -> str:
    return f"Pod {pod.namespace}/{pod.name}" if pod is not None else ""
