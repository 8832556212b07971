"""Node pods that are in a cluster, as `node-pods` lists them (docs/json.md)."""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass

SCHEMA = "ebpfnet.dev/node-pods/v1"
INSTALLED_NAMESPACE = "ebpfnet"
"""Of node pods that stay, unless `node-pods --print-manifest -n` named another."""
OLDEST_PYTHON = "3.11"
EXAMPLE_IMAGE = "python:3.13-slim"
"""A public image that will do; no image of ours has to be pulled."""
ANY_IMAGE = f"--image takes any with Python {OLDEST_PYTHON} or later, such as {EXAMPLE_IMAGE}"
NO_IMAGE = "cannot pull the image"
"""Words of every reason why a node pod's image is not there."""


class Origin(StrEnum):
    """Who made a node pod, and so who deletes it."""

    INSTALLED = "installed"  # somebody, by --print-manifest
    KEPT = "kept"  # a run with --keep
    RUN = "run"  # a run that goes on, or was killed


@dataclass(frozen=True, slots=True)
class ListedNodePod:
    """A node pod that is in the cluster.

    Attributes:
        node: name of its node, "" while it has none.
        namespace, name: of the pod.
        origin: who made it.
        status: as in kubectl's STATUS column.
        image: of its container.
        version: of the program that made it, "" for none.
        age: seconds since its creation by the local clock, None when not said.
        expires: when its kubelet ends it, in RFC 3339; "" for never.
        started_by: user and host of the run, "" for none.
        problem: why runs do not use it, "" for those that they use.
    """

    node: str
    namespace: str
    name: str
    origin: Origin
    status: str
    image: str
    version: str
    age: float | None
    expires: str
    started_by: str
    problem: str
