"""Manifests of node pods that stay, for whoever may create them: by hand, or by GitOps.

Runs find these pods by their label (kept.py) and use them; nothing of ours deletes them. They have
no owner of ours, so `cleanup` does not take them for leftovers. Their priority is the default one,
since many clusters reserve that of node pods of a run for kube-system.
"""

from __future__ import annotations

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    NAME,
    NODE_SIDE,
    STANDING,
    VERSION,
    Manifest,
    NodePodOptions,
    only_on,
    pod_annotations,
    pod_spec,
    privileged_labels,
)
from kubectl_ebpfnet.cluster.nodepods.sides import first_process
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE
from kubectl_ebpfnet.model.protocol import node_side

_SELECTED = {NAME: "ebpfnet", "app.kubernetes.io/component": "node-pod"}


def manifests(namespace: str, node: str, options: NodePodOptions) -> list[Manifest]:
    """Return a DaemonSet, or the pod of one node, after INSTALLED_NAMESPACE where they are in that.

    Another namespace is somebody's: whoever deletes what is printed must not delete it, nor whoever
    applies it change whom it admits.

    Args:
        namespace: for them.
        node: name of the node, "" for all.
        options: image and pull secret; the Secret must be in that namespace.
    """
    spec = pod_spec(options, first_process(0))
    # kubectl refuses fields that an older API server does not know; the annotation says the same.
    del spec["containers"][0]["securityContext"]["appArmorProfile"]
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    labels = {**_SELECTED, STANDING: "true", VERSION: __version__}
    notes = {**pod_annotations(), NODE_SIDE: node_side.own_digest()}
    where: Manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {NAME: "ebpfnet", **privileged_labels()}},
    }
    ours = [where] if namespace == INSTALLED_NAMESPACE else []
    metadata: Manifest = {"labels": labels, "annotations": notes}
    if node:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"ebpfnet-{node}", "namespace": namespace, **metadata},
            "spec": {"affinity": only_on(node), **spec},
        }
        return [*ours, pod]
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "ebpfnet", "namespace": namespace, "labels": _SELECTED},
        "spec": {
            "selector": {"matchLabels": _SELECTED},
            # Nobody waits for these pods: all of them may be replaced at once.
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": metadata, "spec": spec},
        },
    }
    return [*ours, daemon_set]
