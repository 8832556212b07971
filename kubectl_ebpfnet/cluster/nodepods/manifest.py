"""What a run with node pods creates: one namespace, a pod a node in it, perhaps a pull secret.

The namespace is the one object whose deletion takes everything along. Nothing else is made in the
cluster: no Service, no account, no RBAC. Fields: Kubernetes API reference v1 (PodSpec,
SecurityContext); the labels of pod security admission (k8s.io/pod-security-admission/api); the
common labels (Kubernetes docs, "Recommended Labels"). An API server drops the fields that it does
not know, so newer ones stand beside the older ones that they replace.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import CORE
from kubectl_ebpfnet.errors import ClusterError, UsageError

Manifest = dict[str, Any]

DEFAULT_IMAGE = f"ghcr.io/kubectl-ebpfnet/node:{__version__}"
NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN = "ebpfnet.dev/run"
VERSION = "ebpfnet.dev/version"
KEEP = "ebpfnet.dev/keep"
LIFETIME = "ebpfnet.dev/lifetime-seconds"
STARTED_BY = "ebpfnet.dev/started-by"
STARTED = "ebpfnet.dev/started"
EXPIRES = "ebpfnet.dev/expires"
MANAGER = "kubectl-ebpfnet"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""Finds whatever any run made."""

CONTAINER = "node"
SECONDS = 600
KEEP_SECONDS = 8 * 3600
IDLE_SECONDS = 60
"""A node pod that nobody has spoken to for so long ends by itself."""
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
"""Its pods are not evicted for memory or disk, and find a place on a node that is full of pods."""
_DOCKER_CONFIG = "kubernetes.io/dockerconfigjson"
_SECRET = re.compile(r"(?:([a-z0-9][-a-z0-9]*)/)?([a-z0-9][-a-z0-9.]*)")
_OUR_NAME = re.compile(r"ebpfnet-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class NodePodOptions:
    """How node pods are to be.

    Attributes:
        image: of the node side, of this program's version.
        pull_secret: `NAMESPACE/NAME`, or `NAME` in the run's default namespace, of a Secret of
            type kubernetes.io/dockerconfigjson; it is copied into the run's namespace. "" is none.
        keep: leave them running for later runs.
        seconds: that they may live at most; None for 10 minutes, or 8 hours with `keep`.
        command: of the container, in place of the node side; for tests.
    """

    image: str = DEFAULT_IMAGE
    pull_secret: str = ""
    keep: bool = False
    seconds: int | None = None
    command: tuple[str, ...] = ()

    @property
    def lifetime(self) -> int:
        """Seconds after which the kubelet ends a node pod, whatever became of its client."""
        return self.seconds or (KEEP_SECONDS if self.keep else SECONDS)


@dataclass(frozen=True, slots=True)
class Run:
    """One run that deploys node pods.

    Attributes:
        id: eight hexadecimal digits, drawn by lot.
        who: user and host that it runs as, for whoever finds what it left.
        started: when.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(4))
    who: str = ""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def namespace(self) -> str:
        """The name of its namespace."""
        return f"ebpfnet-{self.id}"


def run_of(metadata: Manifest) -> str:
    """The id of the run that made a namespace, by its metadata; "" when no run of ours did.

    Name and labels have to agree: what is deleted for them must be ours without a doubt.
    """
    labels = metadata.get("labels") or {}
    match = _OUR_NAME.fullmatch(str(metadata.get("name")))
    ours = match and labels.get(MANAGED_BY) == MANAGER and labels.get(RUN) == match[1]
    return match[1] if match and ours else ""


def namespace(run: Run, options: NodePodOptions) -> Manifest:
    """The namespace of a run."""
    privileged = {
        f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")
    }
    metadata = {
        "name": run.namespace,
        "labels": {**_labels(run, options), **privileged},
        "annotations": _annotations(run, options),
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod(run: Run, node: str, number: int, options: NodePodOptions, priority: bool) -> Manifest:
    """The node pod of one node.

    Args:
        number: makes its name; a node's name may be longer than a pod's.
        priority: ask for PRIORITY; some clusters reserve it for kube-system.
    """
    lifetime = options.lifetime
    idle = lifetime if options.keep else min(IDLE_SECONDS, lifetime)
    hold = ("python3", "-m", "kubectl_ebpfnet.node", "hold", "--idle", str(idle))
    spec: Manifest = {
        # Affinity rather than nodeName: so the scheduler counts it, and says why it does not fit.
        "affinity": _only_on(node),
        "tolerations": [{"operator": "Exists"}],
        "hostNetwork": True,
        "hostPID": True,
        "dnsPolicy": "Default",
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "activeDeadlineSeconds": lifetime,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(options.image, options.command or hold)],
        "volumes": [
            {"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
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
            # AppArmor's default profile forbids to look into other processes' namespaces.
            f"container.apparmor.security.beta.kubernetes.io/{CONTAINER}": "unconfined",
        },
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(image: str, command: tuple[str, ...]) -> Manifest:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        # Nothing is requested, so that nobody's pod has to give way to it.
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
                "readOnly": True,  # pins can be opened, and none be taken away
            },
            {"name": "run", "mountPath": "/run/ebpfnet"},
        ],
    }


def secret_path(word: str, namespace: str) -> str | None:
    """The path of the pull secret that `NAME` or `NAMESPACE/NAME` means; None for "".

    Raises:
        UsageError: neither is a name.
    """
    if not word:
        return None
    match = _SECRET.fullmatch(word)
    if match is None:
        raise UsageError(
            f"--image-pull-secret {word!r} cannot be a Secret's name",
            hint="it is NAME or NAMESPACE/NAME",
        )
    path = quote(match[1] or namespace, safe="")
    return f"{CORE}/namespaces/{path}/secrets/{quote(match[2], safe='')}"


def pull_secret(run: Run, found: Manifest) -> Manifest:
    """The copy of a pull secret, for the run's namespace.

    Raises:
        ClusterError: it is a Secret of another type, which we do not touch.
    """
    kind = str(found.get("type"))
    if kind != _DOCKER_CONFIG:
        name = (found.get("metadata") or {}).get("name")
        raise ClusterError(
            f'secret "{name}" is of type {kind}, not {_DOCKER_CONFIG}',
            hint="`kubectl create secret docker-registry` makes one that images are pulled with",
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
    """Labels and annotations by which an object is known as ours, and which run made it."""
    return {"labels": _labels(run, options), "annotations": _annotations(run, options)}


def _labels(run: Run, options: NodePodOptions) -> dict[str, str]:
    return {
        NAME: "ebpfnet",
        MANAGED_BY: MANAGER,
        RUN: run.id,
        VERSION: __version__,
        **({KEEP: "true"} if options.keep else {}),
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
    """A time as the API writes it: `2026-11-21T09:30:00Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _only_on(node: str) -> Manifest:
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
