"""The rights that commands need, in the words of SelfSubjectAccessReview (Kubernetes API reference,
authorization.k8s.io/v1): what `doctor` checks, and `doctor --print-rbac` prints (tiers.py).
"""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence

COMMANDS = ("path", "programs", "flows", "capture")


def can_i(verb: str, resource: str, namespace: str = "", name: str = "") -> tuple[str, ...]:
    """Return the argv of an access review's record, in kubectl's words.

    Args:
        verb: `get`, `list`, …
        resource: `pods`, `pods/exec`, `ciliumnodes.cilium.io`, …
        namespace: "" for the whole cluster.
        name: of an object, "" for all.
    """
    where = ("-n", namespace) if namespace else ("-A",)
    return ("auth", "can-i", verb, resource, *((name,) if name else ()), *where)


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a resource, and whether this user has it.

    Attributes:
        verb, resource: `list`, `pods`, `pods/exec`, `ciliumnodes.cilium.io`.
        name: of the one object that is meant, "" for all.
        uses: users of the right: some of COMMANDS, `node-pod`, `cleanup`,
            `pull-secret`.
        effect: what commands do not show without it.
        allowed: in the whole cluster; None when the API server did not say.
        namespaces: where it is allowed, of those asked for, when it is not in the whole cluster.
        problem: why the API server did not say.
        evidence: its review.
    """

    verb: str
    resource: str
    name: str = ""
    uses: tuple[str, ...] = ("path",)
    effect: str = ""
    allowed: bool | None = None
    namespaces: tuple[str, ...] = ()
    problem: str = ""
    evidence: tuple[Evidence, ...] = ()

    def within(self, namespace: str) -> bool | None:
        """Tell whether the right is held in a namespace."""
        return True if namespace in self.namespaces else self.allowed

    @property
    def namespaced(self) -> bool:
        """Whether a Role in one namespace can give it."""
        return self.resource not in _WITHOUT_NAMESPACE

    @property
    def words(self) -> str:
        """`list pods`, as a Role would have it."""
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")


_WITHOUT_NAMESPACE = frozenset({
    "nodes", "namespaces", "ciliumnodes.cilium.io", "ciliumidentities.cilium.io",
    "ciliumclusterwidenetworkpolicies.cilium.io", "ciliumcidrgroups.cilium.io",
    "ciliumegressgatewaypolicies.cilium.io", "servicecidrs.networking.k8s.io",
    "ciliumbgpadvertisements.cilium.io",
})  # fmt: skip


_READ = ("get", "list")


_DEEP = ("path", "capture")


_VIEW = "Cilium's own objects, where no agent can be asked"


_WORKLOAD = "deploy/, sts/, ds/NAME and the like cannot be named"


_NEEDED: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str], ...] = (
    (("get",), ("pods",), COMMANDS, "pod/NAME cannot be named"),
    (("list",), ("pods",), COMMANDS, "whose address it is, and where agents and node pods are"),
    (("get",), ("nodes",), COMMANDS, "node/NAME cannot be named"),
    (("list",), ("nodes",), _DEEP, "the nodes' addresses and health"),
    (("get",), ("namespaces",), COMMANDS, "whether a namespace is there, or is being deleted"),
    (("get",), ("services",), ("path",), "svc/NAME cannot be named as a destination"),
    (("list",), ("services",), _DEEP, "which Service an address is of"),
    (("list",), ("endpointslices.discovery.k8s.io",), _DEEP, "backends of Services, by the API"),
    (
        _READ,
        ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps"),
        COMMANDS,
        _WORKLOAD,
    ),
    (_READ, ("jobs.batch",), COMMANDS, _WORKLOAD),
    (
        ("list",),
        (
            "ciliumendpoints.cilium.io", "ciliumnodes.cilium.io", "ciliumidentities.cilium.io",
        ),
        _DEEP,
        _VIEW,
    ),
    (("get",), ("ciliumendpoints.cilium.io",), ("path",), _VIEW),
    (
        ("list",),
        (
            "networkpolicies.networking.k8s.io", "ciliumnetworkpolicies.cilium.io",
            "ciliumclusterwidenetworkpolicies.cilium.io", "ciliumcidrgroups.cilium.io",
        ),
        _DEEP,
        "which policy by its name allows or denies a packet",
    ),
    (
        ("list",),
        ("ciliumegressgatewaypolicies.cilium.io",),
        _DEEP,
        "which policy by its name leads to an egress gateway",
    ),
    (("list",), ("servicecidrs.networking.k8s.io",), _DEEP, "whether a Service could have it"),
    (
        _READ,
        ("leases.coordination.k8s.io",),
        _DEEP,
        "by which node a client outside enters, where Cilium announces an address (L2)",
    ),
    (
        ("list",),
        ("ciliumbgpadvertisements.cilium.io",),
        _DEEP,
        "whether Cilium advertises a Service's address by BGP",
    ),
    (("create", "get"), ("pods/exec",), COMMANDS, "nothing is seen inside of pods and nodes"),
)  # fmt: skip


_SHARED = {
    ("list", "pods"): ("node-pod", "cleanup"),
    ("get", "nodes"): ("node-pod",),
    ("create", "pods/exec"): ("node-pod",),
    ("get", "pods/exec"): ("node-pod",),
}


_DEPLOY = "no node pod can be deployed"


RIGHTS: tuple[Right, ...] = (
    *(
        Right(verb, resource, "", (*commands, *_SHARED.get((verb, resource), ())), effect)
        for verbs, resources, commands, effect in _NEEDED
        for resource in resources
        for verb in verbs
    ),
    Right("get", "configmaps", "cilium-config", _DEEP, "how Cilium is set up"),
    Right("create", "namespaces", "", ("node-pod",), _DEPLOY),
    Right("create", "pods", "", ("node-pod",), _DEPLOY),
    Right("list", "namespaces", "", ("node-pod", "cleanup"), "what killed runs left is not found"),
    Right("delete", "namespaces", "", ("node-pod", "cleanup"), "node pods are not taken away"),
    Right("delete", "pods", "", ("node-pod", "cleanup"), "node pods end by their deadline alone"),
    Right("create", "secrets", "", ("pull-secret",), "--image-pull-secret does not work"),
)
"""Every right that some command asks for, not yet judged."""
