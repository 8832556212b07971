"""List the node pods that are in a cluster, whoever made them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import Api, Object
from kubectl_ebpfnet.cluster.nodepods.kept import is_node_pod, standing_pods
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    EXPIRES,
    KEEP,
    RUN,
    SELECTOR,
    STARTED_BY,
    VERSION,
    run_of,
)
from kubectl_ebpfnet.cluster.nodepods.status import is_running
from kubectl_ebpfnet.errors import Forbidden, ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.node_pods import ListedNodePod, Origin
from kubectl_ebpfnet.model.untrusted import moment
from kubectl_ebpfnet.parse import kube


def listed_node_pods(api: Api, namespace: str) -> list[ListedNodePod]:
    """Return all node pods, sorted by node.

    Args:
        api: the API server.
        namespace: where to look for a user who may not list the pods of all namespaces.

    Raises:
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    found = list(standing_pods(api, namespace))
    with contextlib.suppress(Forbidden):  # those of runs are in namespaces of their own
        found += api.pods(label_selector=SELECTOR)
    pods = {(each.namespace, each.name): each for each in map(_listed, found)}
    return sorted(pods.values(), key=lambda pod: (pod.node, pod.namespace, pod.name))


def _listed(value: Object) -> ListedNodePod:
    pod = kube.pod(value)
    labels, notes = dict(pod.labels), dict(pod.annotations)
    of_run = RUN in labels
    origin = (Origin.KEPT if KEEP in labels else Origin.RUN) if of_run else Origin.INSTALLED
    version = labels.get(VERSION, "")
    problem = ""
    if origin is Origin.RUN:
        problem = "it is of one run"
    elif not is_node_pod(value) or (of_run and not run_of(pod.namespace, labels)):
        problem = "it has the label of a node pod, but is not made as one"
    elif origin is Origin.KEPT and version != __version__:
        problem = f"version {version} kept it, this is {__version__}"
    elif not is_running(pod):
        problem = "it does not run"
    return ListedNodePod(
        pod.node, pod.namespace, pod.name, origin, pod.state, pod.image, version, _age(value),
        notes.get(EXPIRES, "") if of_run else "", notes.get(STARTED_BY, ""), problem,
    )  # fmt: skip


def _age(value: Object) -> float | None:
    try:
        created = moment(js.text(value, "metadata", "creationTimestamp"), "creationTimestamp")
    except ParseError:
        return None
    return (datetime.now(UTC) - created).total_seconds()
