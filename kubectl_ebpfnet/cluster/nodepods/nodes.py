"""Whether a node pod can start on a node, as its object tells before one is made.

A cordoned node takes one: node pods tolerate every taint. Labels: Kubernetes docs, "Well-Known
Labels, Annotations and Taints"; virtual-kubelet's docs; AWS docs, "AWS Fargate considerations" (a
pod there has no hostNetwork and no privileges).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.errors import ClusterError, NotFound
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.parse import kube

_OTHERS = {
    ("kubernetes.io/os", "windows"): "it runs Windows",
    ("type", "virtual-kubelet"): "it is a virtual kubelet, without a kernel that its pods share",
    ("eks.amazonaws.com/compute-type", "fargate"): "it is Fargate's, which takes no such pod",
}
"""Label and value of nodes that no node pod can look at."""


def why_no_node_pods(api: Api, nodes: Iterable[str], seconds: float | None) -> dict[str, str]:
    """Return by node why no node pod can start there, one sentence; nodes that may take one, and
    those of which this user can read nothing in time, are left out.

    Args:
        api: the API server.
        nodes: names.
        seconds: longest time to wait; None for no limit.
    """
    until = None if seconds is None else time.monotonic() + seconds
    pool, found = Pool(), {}
    for name, reading in [(name, pool.start(partial(why_not_on, api, name))) for name in nodes]:
        try:
            why = reading.result(None if until is None else max(0.0, until - time.monotonic()))
        except TimeoutError:
            break
        if why:
            found[name] = why
    return found


def why_not_on(api: Api, name: str) -> str:
    """Return why no node pod can start on a node, "" where it may, or nobody says."""
    try:
        why = _why_not(kube.node(api.node(name)))
    except NotFound:
        why = "there is no such node"
    except ClusterError:
        return ""  # this user may not read nodes
    return f"no node pod can start on {name}: {why}" if why else ""


def _why_not(node: Node) -> str:
    other = next((_OTHERS[label] for label in node.labels if label in _OTHERS), "")
    if other or node.ready or not node.not_ready_since:
        return other
    reason = " ".join(node.reason.split())
    return f"not Ready since {node.not_ready_since}{f': {reason}' if reason else ''}"
