"""The answer of `doctor`, and the rights that it checks. JSON: docs/json.md.

The rights are those of the roles that `doctor --print-rbac` prints (tiers.py), in the words of
SelfSubjectAccessReview (Kubernetes API reference, authorization.k8s.io/v1).
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.path import Evidence, Finding

SCHEMA = "ebpfnet.dev/doctor/v1"
COMMANDS = ("path", "programs", "flows", "capture")
CONNECTION = ("ebpfnet", "connection")
"""argv of the record of the connection's settings; its place is the client's machine."""
SERVER_VERSION = ("get", "--raw", "/version")
WHO = ("auth", "whoami")


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


class Level(StrEnum):
    """How much a command will show of a node."""

    FULL = "full"
    PARTIAL = "partial"
    BLIND = "blind"


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


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection to the cluster.

    Attributes:
        context, server, namespace: of the kubeconfig and the flags; "" in a capture.
        node_access: of --node-access; "" in a capture.
        kubernetes: the server's version, "" when it is not known.
        user, groups: as whom the API server knows us; "" and () where it does not say.
    """

    context: str = ""
    server: str = ""
    namespace: str = ""
    node_access: str = ""
    kubernetes: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CiliumFound:
    """Cilium as it is installed in the cluster.

    Attributes:
        found: None when its agents could not be looked for.
        namespace: of the agents.
        daemonset: that runs them, "" when they have none.
        agents, running: how many pods, and how many of them run.
        features: (name, value), known ones only.
        config: how the first node that said so has set its datapath up.
        problem: why it could not be looked for, or how it is set up is not known.
    """

    found: bool | None = None
    namespace: str = ""
    daemonset: str = ""
    agents: int = 0
    running: int = 0
    features: tuple[tuple[str, str], ...] = ()
    config: DatapathConfig = field(default_factory=DatapathConfig)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a command will not show.

    Attributes:
        what: it is, and why not.
        help: what would help, "" for nothing we know.
        blinds: the command shows nothing at all without it.
    """

    what: str
    help: str = ""
    blinds: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """What one command will show of one node.

    Attributes:
        command: of COMMANDS.
        level: how much.
        lacks: what it will not show; () when the level is full.
    """

    command: str
    level: Level
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """A node, and who can answer for it.

    Attributes:
        name: the node's.
        ready: the API's condition; None when the node cannot be read.
        not_ready: why it is not Ready.
        agent: state of Cilium's agent there: `running`, why it is not, "" for no agent.
        agent_exec: a command ran in it; None when nothing was tried.
        agent_problem: why none ran.
        tools: of TOOL_NAMES (model/catalogue.py) that are in the agent's image.
        missing_tools: that are not; what was not looked for is in neither.
        node_pod: `installed`, `kept` or `deployed`; `shell` for commands that somebody ran on the
            node (in a capture); "" for none.
        node_pod_problem: why it did not answer, or could not be deployed.
        kernel: what the kernel says of itself, by a node pod.
        kernel_release: uname -r, by a node pod or by the Node object; "" where neither is known.
        by: who answers for the node: `agent`, `node pod`, `shell`, `new node pod` (each run
            deploys one; not tried), "" for nobody.
        commands: one for each of COMMANDS.
        evidence: what was asked there.
    """

    name: str
    ready: bool | None = None
    not_ready: str = ""
    agent: str = ""
    agent_exec: bool | None = None
    agent_problem: str = ""
    tools: tuple[str, ...] = ()
    missing_tools: tuple[str, ...] = ()
    node_pod: str = ""
    node_pod_problem: str = ""
    kernel: KernelFacts | None = None
    kernel_release: str = ""
    by: str = ""
    commands: tuple[Reach, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def reach(self, command: str) -> Reach:
        """Return the reach of a command. Raises KeyError."""
        return {reach.command: reach for reach in self.commands}[command]


@dataclass(frozen=True, slots=True)
class Checkup:
    """The whole report.

    Attributes:
        connection: how the cluster was asked.
        rights: in the order of RIGHTS; () when they are not known (a capture).
        cilium: what there is of it.
        nodes: every node that is known.
        commands: what each command will show of nodes that could not even be listed, () when they
            could.
        verdict: of `path`, at the worst node that is Ready.
        missing: one sentence for each thing that could not be looked at.
        findings: what contradicts itself in the cluster's objects.
    """

    connection: Connection
    rights: tuple[Right, ...]
    cilium: CiliumFound
    nodes: tuple[NodeCheck, ...]
    commands: tuple[Reach, ...] = ()
    verdict: Level = Level.FULL
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
