"""Manifests of a run with node pods: a namespace, a pod per node, perhaps a pull secret.

Deleting the namespace deletes everything. Nothing else is created in the cluster: no Service, no
service account, no RBAC. Fields: Kubernetes API reference v1 (PodSpec,
SecurityContext); the labels of pod security admission (k8s.io/pod-security-admission/api); the
common labels (Kubernetes docs, "Recommended Labels"). An API server drops unknown fields,
so newer fields stand beside the older fields that they replace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import CORE
from kubectl_ebpfnet.cluster.nodepods.sides import first_process
from kubectl_ebpfnet.errors import ClusterError, UsageError
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.protocol import node_side

Manifest = dict[str, Any]

DEFAULT_IMAGE = f"ghcr.io/kubectl-ebpfnet/node:{__version__}"
NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN = "ebpfnet.dev/run"
VERSION = "ebpfnet.dev/version"
KEEP = "ebpfnet.dev/keep"
STANDING = "ebpfnet.dev/node-pod"
"""Of node pods that runs find: those of an installed DaemonSet, and those that a run kept."""
STANDING_SELECTOR = f"{STANDING}=true"
LIFETIME = "ebpfnet.dev/lifetime-seconds"
STARTED_BY = "ebpfnet.dev/started-by"
STARTED = "ebpfnet.dev/started"
EXPIRES = "ebpfnet.dev/expires"
NODE_SIDE = "ebpfnet.dev/node-side"
"""The digest of the node side of who deployed it (model/protocol/node_side.py)."""
MANAGER = "kubectl-ebpfnet"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""Selects the objects of all runs."""

CONTAINER = "node"
SECONDS = 600
KEEP_SECONDS = 8 * 3600
IDLE_SECONDS = 60
"""Seconds without a session after which a node pod ends by itself."""
PULL_SECRET = "pull"  # noqa: S105  the name of an object
CAPABILITIES = (
    "SYS_ADMIN",  # setns(2) into a pod's namespaces; bpf(2) on kernels before 5.8
    "NET_ADMIN",  # netlink's questions about tc and XDP; conntrack
    "NET_RAW",  # legacy iptables-save opens a raw socket
    "SYS_PTRACE",  # /proc/PID/ns and /proc/PID/root of other users' processes
    "SYS_CHROOT",  # setns(2) into a mount namespace, for the node's own programs
    "DAC_READ_SEARCH",  # pins in folders of other users
)
PRIORITY = "system-node-critical"
"""Pods of this priority are not evicted for memory or disk, and fit on a node full of pods."""
_DOCKER_CONFIG = "kubernetes.io/dockerconfigjson"
_SECRET = re.compile(r"(?:([a-z0-9][-a-z0-9]*)/)?([a-z0-9][-a-z0-9.]*)")
_OUR_NAME = re.compile(r"ebpfnet-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class NodePodOptions:
    """Options of node pods.

    Attributes:
        image: image of the node side, of this program's version.
        pull_secret: `NAMESPACE/NAME`, or `NAME` in the session's default namespace, of a Secret of
            type kubernetes.io/dockerconfigjson, copied into the run's namespace; "" for none.
        keep: leave the pods running for later runs.
        seconds: longest lifetime, None for 10 minutes, or 8 hours with `keep`.
        command: command of the container instead of the node side, for tests.
    """

    image: str = DEFAULT_IMAGE
    pull_secret: str = ""
    keep: bool = False
    seconds: int | None = None
    command: tuple[str, ...] = ()

    @property
    def lifetime(self) -> int:
        """Seconds after which the kubelet ends a node pod, whether its client lives or not."""
        return self.seconds or (KEEP_SECONDS if self.keep else SECONDS)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that deploys node pods.

    Attributes:
        who: user and host of the run, which `cleanup` shows.
        started: start of the run, by the API server's clock.
        id: eight random hexadecimal digits.
    """

    who: str
    started: datetime
    id: str = field(default_factory=lambda: os.urandom(4).hex())

    @property
    def namespace(self) -> str:
        """The name of the run's namespace."""
        return f"ebpfnet-{self.id}"


def run_of(namespace: str, labels: Mapping[str, str]) -> str:
    """Return the id of the run that created a namespace, "" for another namespace.

    Name and labels must agree, so that only namespaces of runs are ever deleted.
    """
    match = _OUR_NAME.fullmatch(namespace)
    ours = match and labels.get(MANAGED_BY) == MANAGER and labels.get(RUN) == match[1]
    return match[1] if match and ours else ""


def namespace(run: Run, options: NodePodOptions) -> Manifest:
    """Return the namespace of a run."""
    metadata = {
        "name": run.namespace,
        "labels": {**_labels(run, options), **privileged_labels()},
        "annotations": _annotations(run, options),
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod(run: Run, node: str, number: int, options: NodePodOptions, priority: bool) -> Manifest:
    """Return the node pod of a node.

    Args:
        run: the run that deploys it.
        node: name of the node.
        number: number in the pod's name, since a node's name may be too long for a pod.
        options: image, lifetime and pull secret.
        priority: request PRIORITY, which some clusters reserve for kube-system.
    """
    lifetime = options.lifetime
    idle = lifetime if options.keep else min(IDLE_SECONDS, lifetime)
    spec: Manifest = {
        # Affinity, not nodeName: the scheduler counts the pod, and reports why it does not fit.
        "affinity": only_on(node),
        "restartPolicy": "Never",
        "activeDeadlineSeconds": lifetime,
        **pod_spec(options, options.command or first_process(idle)),
    }
    if priority:
        spec["priorityClassName"] = PRIORITY
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": PULL_SECRET}]
    metadata = {
        "name": f"node-{number}",
        "namespace": run.namespace,
        "labels": _labels(run, options),
        "annotations": {
            **_annotations(run, options),
            **pod_annotations(),
            NODE_SIDE: node_side.own_digest(),
        },
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod_spec(options: NodePodOptions, command: tuple[str, ...]) -> Manifest:
    """Return what the spec of every node pod has.

    Args:
        options: image of the pod.
        command: of its container.
    """
    return {
        "tolerations": [{"operator": "Exists"}],
        "hostNetwork": True,
        "hostPID": True,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(options.image, command)],
        "volumes": [
            {"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}},
            # Node sides that clients send (sides.py): 7 MiB each, compiled.
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }


def pod_annotations() -> Manifest:
    """Return the annotations that every node pod needs."""
    # AppArmor's default profile forbids access to other processes' namespaces.
    return {f"container.apparmor.security.beta.kubernetes.io/{CONTAINER}": "unconfined"}


def privileged_labels() -> dict[str, str]:
    """Return the labels of a namespace whose pods Pod Security admits, whatever they may do."""
    modes = ("enforce", "audit", "warn")
    return {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in modes}


def _container(image: str, command: tuple[str, ...]) -> Manifest:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        # What ends it stands in the pod's status: an old Python, an error of the image.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "command": list(command),
        # No requests, so that no other pod is preempted.
        "resources": {"requests": {"cpu": "0", "memory": "0"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": True,  # the API refuses false beside SYS_ADMIN
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            # Docker's and containerd's older profiles refuse clone3(2), which glibc needs.
            "seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Unconfined"},
        },
        "volumeMounts": [
            {
                "name": "bpf",
                "mountPath": "/sys/fs/bpf",
                "mountPropagation": "HostToContainer",
                "readOnly": True,  # pins can be opened, but not removed
            },
            {"name": "run", "mountPath": "/run/ebpfnet"},
            # Commands of a node side that was sent, where every image's PATH has them.
            {"name": "run", "mountPath": "/usr/local/sbin", "subPath": "bin"},
        ],
    }


def secret_path(word: str, namespace: str) -> str | None:
    """Return the API path of the pull secret `NAME` or `NAMESPACE/NAME`, None for "".

    Raises:
        UsageError: the word is not a Secret's name.
    """
    if not word:
        return None
    match = _SECRET.fullmatch(word)
    if match is None:
        raise UsageError(
            f"--image-pull-secret {word!r} is not a Secret's name",
            hint="use NAME or NAMESPACE/NAME",
        )
    path = quote(match[1] or namespace, safe="")
    return f"{CORE}/namespaces/{path}/secrets/{quote(match[2], safe='')}"


def pull_secret(run: Run, found: Manifest) -> Manifest:
    """Return a copy of a pull secret for the run's namespace.

    Raises:
        ClusterError: the Secret has another type; such Secrets are never copied.
    """
    kind = str(found.get("type"))
    if kind != _DOCKER_CONFIG:
        name = json_members.text(found, "metadata", "name")
        raise ClusterError(
            f'secret "{name}" is of type {kind}, not {_DOCKER_CONFIG}',
            hint="`kubectl create secret docker-registry` creates a pull secret",
        )
    labels = {NAME: "ebpfnet", MANAGED_BY: MANAGER, RUN: run.id}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PULL_SECRET, "namespace": run.namespace, "labels": labels},
        "type": kind,
        "data": found.get("data") or {},
    }


def object_metadata(run: Run, options: NodePodOptions) -> Manifest:
    """Return the labels and annotations that mark an object of a run."""
    return {"labels": _labels(run, options), "annotations": _annotations(run, options)}


def _labels(run: Run, options: NodePodOptions) -> dict[str, str]:
    return {
        NAME: "ebpfnet",
        MANAGED_BY: MANAGER,
        RUN: run.id,
        VERSION: __version__,
        **({KEEP: "true", STANDING: "true"} if options.keep else {}),
    }


def _annotations(run: Run, options: NodePodOptions) -> dict[str, str]:
    expires = run.started + timedelta(seconds=options.lifetime)
    return {
        STARTED_BY: run.who,
        STARTED: rfc3339(run.started),
        EXPIRES: rfc3339(expires),
        LIFETIME: str(options.lifetime),
    }


def rfc3339(when: datetime) -> str:
    """Return a time in the API's form: `2026-11-21T09:30:00Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def only_on(node: str) -> Manifest:
    """Return the affinity that keeps a pod on a node."""
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
