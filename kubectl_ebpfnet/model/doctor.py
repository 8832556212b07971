"""The answer of `doctor`. JSON: docs/json.md."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import TraceLayer
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.path import Evidence, Finding
from kubectl_ebpfnet.model.rights import Right

SCHEMA = "ebpfnet.dev/doctor/v1"
CONNECTION = ("ebpfnet", "connection")
"""argv of the record of the connection's settings; its place is the client's machine."""
SERVER_VERSION = ("get", "--raw", "/version")
WHO = ("auth", "whoami")


class Level(StrEnum):
    """How much a command will show of a node."""

    FULL = "full"
    PARTIAL = "partial"
    BLIND = "blind"


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
class TraceSight:
    """Which of trace's programs a node's kernel takes.

    Attributes:
        layers: what was found by loading; () where nobody tried.
        unknown: why nobody could try, "" where somebody did.
        help: what would tell, "" for nothing we know.
    """

    layers: tuple[TraceLayer, ...] = ()
    unknown: str = ""
    help: str = ""


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
        trace: what `trace` will see there.
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
    trace: TraceSight = TraceSight()
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
