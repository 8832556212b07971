"""The answer of `flows`: tracked flows of a node, each joined through its translations.

JSON: docs/json.md.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import TrackedFlow

SCHEMA = "ebpfnet.dev/flows/v1"


@dataclass(frozen=True, slots=True)
class FlowList:
    """Flows of a pod or a node.

    Attributes:
        target: `pod NAMESPACE/NAME` or `node NAME`.
        node: whose tables were read, "" when the pod has none.
        flows: those of which a packet was seen last first.
        missing: one sentence for each table that could not be read, or not whole.
        known: the tables that have such flows were read, so that none means that there are none.
        more: older flows that were read and are not among `flows`.
    """

    target: str
    node: str
    flows: tuple[TrackedFlow, ...]
    missing: tuple[str, ...] = ()
    known: bool = True
    more: int = 0
