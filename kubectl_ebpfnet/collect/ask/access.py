"""How nodes may be asked: --node-access, and what a node pod is made of."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.cluster.nodepods.manifest import NodePodOptions
from kubectl_ebpfnet.model.dataclass import dataclass


class Mode(StrEnum):
    """Values of --node-access."""

    AUTO = "auto"
    AGENT = "agent"
    POD = "pod"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """How nodes may be asked.

    Attributes:
        mode: of --node-access.
        options: of node pods to deploy.
    """

    mode: Mode = Mode.AGENT
    options: NodePodOptions = field(default_factory=NodePodOptions)


BY_AGENT = NodeAccess()
"""Ask agents; deploy nothing."""
