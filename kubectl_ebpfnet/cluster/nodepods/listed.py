"""List the node pods that are in a cluster, whoever made them."""

from __future__ import annotations

import contextlib
import math
from datetime import datetime

from kubectl_ebpfnet.cluster.client.api import Api, Object
from kubectl_ebpfnet.cluster.nodepods.kept import NOT_RUNNING, standing_pods, why_not_used
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    EXPIRES,
    KEEP,
    RUN,
    SELECTOR,
    STARTED_BY,
    VERSION,
)
from kubectl_ebpfnet.cluster.nodepods.status import failure_of
from kubectl_ebpfnet.errors import Forbidden, ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.kube import Pod
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
    now = api.session.clock.now()
    pods = {(each.namespace, each.name): each for each in (_listed(one, now) for one in found)}
    return sorted(pods.values(), key=lambda pod: (pod.node, pod.namespace, pod.name))


def _listed(value: Object, now: datetime) -> ListedNodePod:
    pod = kube.pod(value)
    labels, notes = dict(pod.labels), dict(pod.annotations)
    of_run = RUN in labels
    origin = (Origin.KEPT if KEEP in labels else Origin.RUN) if of_run else Origin.INSTALLED
    return ListedNodePod(
        pod.node, pod.namespace, pod.name, origin, pod.state, pod.image,
        labels.get(VERSION, ""), _age(value, now), notes.get(EXPIRES, "") if of_run else "",
        notes.get(STARTED_BY, ""), _problem(value, pod, now),
    )  # fmt: skip


def _problem(value: Object, pod: Pod, now: datetime) -> str:
    why = why_not_used(value, now)
    failure = failure_of(pod, pod.node, math.inf) if why == NOT_RUNNING else None
    return why if failure is None else str(failure)


def _age(value: Object, now: datetime) -> float | None:
    try:
        created = moment(js.text(value, "metadata", "creationTimestamp"), "creationTimestamp")
    except ParseError:
        return None
    return (now - created).total_seconds()
