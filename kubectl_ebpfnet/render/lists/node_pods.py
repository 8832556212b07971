"""`node-pods`: one line a node pod."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.node_pods import SCHEMA, ListedNodePod
from kubectl_ebpfnet.render.lists.listing import Column, Listing
from kubectl_ebpfnet.render.text.durations import age

_COLUMNS: tuple[Column[ListedNodePod], ...] = (
    Column("NODE", lambda pod: pod.node),
    Column("NAMESPACE", lambda pod: pod.namespace),
    Column("POD", lambda pod: pod.name),
    Column("ORIGIN", lambda pod: pod.origin.value),
    Column("STATUS", lambda pod: pod.status),
    Column("AGE", lambda pod: "" if pod.age is None else age(pod.age), key=lambda pod: pod.age),
    Column("EXPIRES", lambda pod: pod.expires),
    Column("NOT USED", lambda pod: pod.problem, elastic=True),
    Column("VERSION", lambda pod: pod.version, wide=True),
    Column("IMAGE", lambda pod: pod.image, wide=True),
    Column("BY", lambda pod: pod.started_by, wide=True),
)


def listing(pods: Sequence[ListedNodePod]) -> Listing[ListedNodePod]:
    """Lay node pods out as a list."""
    return Listing(
        schema=SCHEMA,
        title="",
        columns=_COLUMNS,
        rows=pods,
        evidence=lambda _: (),
        nothing="No node pods found that this user may list.",
        notes=(),
        document={},
        alone=True,
        name=lambda pod: f"pod/{pod.name}",
    )
