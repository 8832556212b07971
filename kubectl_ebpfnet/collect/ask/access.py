"""How nodes may be asked: --node-access, and what a node pod is made of."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.cluster.nodepods.manifest import NodePodOptions
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun


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
        dry_run: CLIENT and SERVER where none is to be deployed, and said what would be.
    """

    mode: Mode = Mode.AGENT
    options: NodePodOptions = field(default_factory=NodePodOptions)
    dry_run: DryRun = DryRun.NONE


BY_AGENT = NodeAccess()
"""Ask agents; deploy nothing."""
