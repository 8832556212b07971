"""Whether cil_to_netdev, which masquerades and leads to egress gateways, is at a device."""

from __future__ import annotations

from kubectl_ebpfnet.explain.programs.at_device import Presence, at_device
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence


@dataclass(frozen=True, slots=True)
class NetworkProgram:
    """Whether cil_to_netdev is at a device.

    Attributes:
        attached: None where the programs there could not be read.
        missing: why not.
        evidence: of the program, or of the list that lacks it.
    """

    attached: bool | None
    missing: str
    evidence: tuple[Evidence, ...]


def to_netdev_at(node: NodeView, device: str) -> NetworkProgram:
    """Return whether cil_to_netdev is at a device of a node."""
    found = at_device(node, device, "egress")
    if found.cilium is Presence.PRESENT:
        ours = next(program for program in found.programs if program.ciliums)
        return NetworkProgram(True, "", ours.evidence)
    if found.cilium is Presence.ABSENT:
        return NetworkProgram(False, "", found.evidence)
    if device in node.config.devices:
        return NetworkProgram(True, "", ())  # the agent attached it, and nothing contradicts it
    return NetworkProgram(None, found.missing, found.evidence)
