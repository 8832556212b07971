"""Nodes on the way that are not Ready: one that is down or cut off forwards nothing."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model.path import Severity
from kubectl_ebpfnet.model.shell import word


def warn(walk: PathBuilder, name: str) -> None:
    """Warn of a node that the packet comes to and that is not Ready.

    Args:
        walk: takes the finding.
        name: of the node.
    """
    node = walk.cluster.kube_node(name)
    if node is None or node.ready or any(f.title.startswith(_title(name)) for f in walk.findings):
        return
    since = f" since {node.not_ready_since}" if node.not_ready_since else ""
    walk.finding(
        Severity.WARNING,
        f"{_title(name)}{since}" + (f": {node.reason}" if node.reason else ""),
        "Where it is down or cut off, nothing that is sent there arrives: "
        f"`kubectl describe node {word(name)}` tells more.",
        cite.whole(walk.cluster.node_record(name)),
    )


def _title(name: str) -> str:
    return f"node {name} is not Ready"
