"""How much each command will show of a node: by who can answer for it, and with which tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError, print_rbac, tier_of
from kubectl_ebpfnet.explain.doctor.captured import lacks_of_capture
from kubectl_ebpfnet.explain.doctor.context import NODE_POD, DoctorContext
from kubectl_ebpfnet.explain.doctor.tools import DEEP, NO_SHELL, by_tools
from kubectl_ebpfnet.explain.doctor.trace_sight import trace_sight
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import NF_CONNTRACK, TOOL_NAMES
from kubectl_ebpfnet.model.doctor import Lack, Level, NodeCheck, Reach
from kubectl_ebpfnet.model.evidence import NOBODY_ASKED, Record, agent_place, node_place
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.protocol.questions import PROGRAM
from kubectl_ebpfnet.model.rights import COMMANDS, Right
from kubectl_ebpfnet.model.untrusted import integer

_NOT_FOUND = 127
_LABELS = {"ebpfnet.dev/keep": "kept", "ebpfnet.dev/node-pod": "installed"}
"""Label of a node pod that stays, and who let it: kept ones have both."""
_ASKED = frozenset(argv for fact in q.FACTS if Need.DOCTOR in fact.need for argv in fact.answers)
_LATE = "that --timeout allows"  # collect/deadline.py


def check(name: str, context: DoctorContext) -> NodeCheck:
    """Check a node: who answers for it, and how much each command will show of it."""
    cluster = context.cluster
    node = context.nodes.get(name)
    by_agent = context.records.get(agent_place(name), ())
    by_pod = context.records.get(node_place(name), ())
    ran = any(record.ran for record in by_agent)
    tools, missing = _tools(cluster, name, by_agent)
    there = any(record.ran for record in by_pod)
    facts = cluster.node(name)[q.KERNEL].facts if there else ()
    kernel = next(iter(facts), None)
    found = NodeCheck(
        name,
        ready=None if node is None else node.ready,
        not_ready="" if node is None or node.ready else node.reason,
        agent=_agent(context.agents.get(name), ran),
        agent_exec=ran if by_agent else None,
        agent_problem="" if ran else _problem(by_agent),
        tools=tools,
        missing_tools=missing,
        node_pod=_node_pod(context.standing.get(name, "deployed"), by_pod) if there else "",
        node_pod_problem="" if there else _problem(by_pod),
        kernel=kernel,
        kernel_release=kernel.release if kernel else node.kernel if node else "",
        trace=trace_sight(name, context),
        evidence=tuple(_evidence((*by_agent, *by_pod))),
    )
    found = replace(found, by=_by(found, context))
    return replace(found, commands=reaches(found, context))


def runs(pod: Pod) -> bool:
    """Tell whether an agent's pod runs and is not reported unhealthy."""
    return pod.phase == "Running" and (pod.ready or not pod.reason)


def _agent(pod: Pod | None, ran: bool) -> str:
    if pod is None:
        return "running" if ran else ""
    if runs(pod):
        return "running"
    if ran:
        return "not Ready"
    return pod.reason.partition(":")[0] or pod.phase


def _problem(records: Sequence[Record]) -> str:
    return next((r.why_not() for r in records if not r.ran), "")


def _node_pod(origin: str, records: Sequence[Record]) -> str:
    if not any(record.argv[0] == PROGRAM for record in records):
        return "shell"  # somebody's commands, in a capture
    return origin


def standing_on(pods: Iterable[Pod]) -> Mapping[str, str]:
    """Return who let the node pod of a node stay, by node: `kept` by a run, or `installed`."""
    found: dict[str, str] = {}
    for pod in pods:
        origins = [origin for label, origin in _LABELS.items() if pod.label(label) == "true"]
        if pod.node and origins:
            found[pod.node] = origins[0]
    return found


def _tools(
    cluster: ClusterView, node: str, records: Sequence[Record]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which of TOOL_NAMES an agent has and which it lacks, by TOOLS or by its commands."""
    asked = cluster.node(node)[q.TOOLS]
    if asked.known:
        there = tuple(name for name in TOOL_NAMES if name in asked.facts)
        return there, tuple(name for name in TOOL_NAMES if name not in asked.facts)
    has: set[str] = set()
    lacks: set[str] = set()
    for record in records:
        if record.argv[-1] == NF_CONNTRACK and record.ran:
            (has if record.ok else lacks).add(NF_CONNTRACK)
        elif record.exit_code == _NOT_FOUND or NO_SHELL in record.error:
            lacks.add(record.argv[0])
        elif record.ran:
            has.add(record.argv[0])
    return (
        tuple(name for name in TOOL_NAMES if name in has),
        tuple(name for name in TOOL_NAMES if name in lacks - has),
    )


def _evidence(records: Iterable[Record]) -> Iterator[Evidence]:
    """Cite the records that were made for this report; a capture's tables are not cited."""
    for record in records:
        if not record.ran:
            yield from cite.whole(record)
        elif record.argv in _ASKED:
            yield Evidence(record.number)


def _by(found: NodeCheck, context: DoctorContext) -> str:
    """Return who will answer for the node, as collect's NodeAnswerers chooses."""
    mode = context.connection.node_access
    if mode == "none":
        return ""
    if found.node_pod and mode != "agent":
        return "shell" if found.node_pod == "shell" else "node pod"
    if mode == "pod":
        return ""
    if found.agent_exec:
        return "agent"
    if (
        mode == "auto"
        and found.agent not in ("running", "not Ready")
        and not context.lacking_to_deploy
    ):
        return "new node pod"
    return ""


# --- commands -------------------------------------------------------------------------------------


def reaches(found: NodeCheck, context: DoctorContext) -> tuple[Reach, ...]:
    """Return how much each command will show of the node; without a name, of any node."""
    return tuple(_reach(command, found, context) for command in COMMANDS)


def _reach(command: str, found: NodeCheck, context: DoctorContext) -> Reach:
    if not found.by:
        return Reach(command, Level.BLIND, (_nobody(found, context),))
    lacks = list(_by_rights(command, found, context))
    if found.by == "agent":
        lacks += by_tools(command, found, context)
    if not context.live:
        lacks += lacks_of_capture(command, found.name, context.cluster)
    elif found.kernel is not None:
        lacks += [Lack(problem) for problem in found.kernel.problems]
    if any(lack.blinds for lack in lacks):
        return Reach(command, Level.BLIND, tuple(lacks))
    return Reach(command, Level.PARTIAL if lacks else Level.FULL, tuple(lacks))


def _nobody(found: NodeCheck, context: DoctorContext) -> Lack:
    """Return why nobody answers for a node, and the remedy."""
    mode, denied = context.connection.node_access, context.lacking_to_deploy
    if mode == "none":
        return Lack("--node-access none asks no node", "another --node-access")
    if not found.name:
        return Lack(
            "no node is known: neither nodes nor agents can be listed", print_rbac("agents")
        )
    reasons = [] if found.ready is not False else [f"the node is not Ready ({found.not_ready})"]
    if mode == "pod":
        reasons.append(found.node_pod_problem or "no node pod answered")
        return Lack("; ".join(reasons), print_rbac("deploy") if denied else "")
    if found.node_pod_problem != NOBODY_ASKED:
        reasons.append(found.agent_problem or "no Cilium agent answers there")
    if found.node_pod_problem:
        reasons.append(found.node_pod_problem)
    if not context.live:
        return Lack("; ".join(reasons), "a new capture with --node-access pod")
    if not context.rights:
        return Lack("; ".join(reasons))
    if any(_LATE in reason for reason in reasons):
        return Lack("; ".join(reasons), "a longer --timeout")
    if denied:
        reasons.append(f"no node pod can be deployed without {denied[0]}")
        return Lack("; ".join(reasons), f"{print_rbac('agents')}, or =deploy for a node pod")
    return Lack("; ".join(reasons), NODE_POD)


# Right → commands that show less without it. Other rights appear in the list of rights only: they
# serve to name a source, or the agents give the same facts.
_LOWERS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("list", "pods"): DEEP,
    ("get", "nodes"): ("programs", "flows"),
    ("list", "nodes"): DEEP,
    ("get", "services"): ("path",),
    ("list", "services"): DEEP,
    ("list", "endpointslices.discovery.k8s.io"): DEEP,
}
_CILIUM = (
    ("get", "configmaps"),
    ("list", "ciliumnodes.cilium.io"),
    ("list", "ciliumidentities.cilium.io"),
)
_EXEC_CREATE_SINCE = 35


def _by_rights(command: str, found: NodeCheck, context: DoctorContext) -> Iterator[Lack]:
    namespace = context.connection.namespace
    for right in context.rights:
        # Lists are of the whole cluster; one object is in the namespace of -n.
        allowed = right.allowed if right.verb == "list" else right.within(namespace)
        if allowed is not False:
            continue
        yield from _without(right, command, found, context)


def _without(
    right: Right, command: str, found: NodeCheck, context: DoctorContext
) -> Iterator[Lack]:
    where = f"in namespace {context.connection.namespace}"
    help_ = f"{right.words} ({tier_of(right.verb, right.resource)})"
    by_agent, pair = found.by == "agent", (right.verb, right.resource)
    if pair == ("get", "pods") and command != "capture":
        yield Lack(f"pods {where}: they cannot be named", help_, blinds=command == "path")
    elif right.resource == "pods/exec" and by_agent and command in DEEP:
        if right.verb == "get" or needs_create(context.connection.kubernetes):
            yield Lack(f"what pods {where} see themselves: no exec into them", help_)
    elif command in _LOWERS.get(pair, ()) or (
        # Where an agent answers, it says the same.
        pair in _CILIUM and not by_agent and command in DEEP and context.cilium.found
    ):
        yield Lack(right.effect, help_)


def needs_create(kubernetes: str) -> bool:
    """Tell whether this API server checks exec for `create` too (kubernetes/kubernetes#134577)."""
    _, _, rest = kubernetes.partition(".")
    minor = rest.partition(".")[0]
    try:
        return integer(minor, "a version") >= _EXEC_CREATE_SINCE
    except ParseError:
        return True
