"""How nodes may be asked: --node-access, and what a node pod is made of."""

from __future__ import annotations

from collections.abc import Callable
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
        agree: asks whether a node pod may be deployed where mode is AUTO; takes the question, and
            returns why not, "" for a yes. None where nobody needs to be asked.
    """

    mode: Mode = Mode.AGENT
    options: NodePodOptions = field(default_factory=NodePodOptions)
    dry_run: DryRun = DryRun.NONE
    agree: Callable[[str], str] | None = None


BY_AGENT = NodeAccess()
"""Ask agents; deploy nothing."""
