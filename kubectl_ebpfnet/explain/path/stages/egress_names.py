"""Which policy of the egress gateway is behind a row of the policy map, and what a person edits in
it.

A row has no name. Its pod is selected by the policy, and its prefix is one of the policy's CIDRs;
the gateway is the first node by name that a nodeSelector selects (pkg/egressgateway/policy.go).
Where the objects and the map disagree, that is a finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.path import egress_gateway as egress
from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.stages import policy_ends
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.explain.policy.party import Hit, Party, all_of, any_of, selects
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.egress_policy import EgressPolicy
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence, Fix, Severity
from kubectl_ebpfnet.model.policy import Selector
from kubectl_ebpfnet.model.shell import word

RESOURCES = ("ciliumegressgatewaypolicies", "ciliumegressnatpolicies")


@dataclass(frozen=True, slots=True)
class Behind:
    """The policies that may be behind a row.

    Attributes:
        policies: that select the pod and have the row's CIDR; several where their pods overlap.
        unread: why they are not known, "" where they are.
        stale: every policy was read, and none is behind the row.
        evidence: of the objects.
    """

    policies: tuple[EgressPolicy, ...] = ()
    unread: str = ""
    stale: bool = False
    evidence: tuple[Evidence, ...] = ()

    @property
    def object(self) -> str:
        """The one object that a person would edit, "" where it is not known."""
        return self.policies[0].title if len(self.policies) == 1 else ""

    @property
    def title(self) -> str:
        """`CiliumEgressGatewayPolicy egw`, or how it is called without a name."""
        named = " or ".join(policy.name for policy in self.policies)
        return f"{self.policies[0].kind} {named}" if named else "the egress gateway policy"

    @property
    def hop(self) -> str:
        """How a hop calls it: `egress gateway policy egw`."""
        named = " or ".join(policy.name for policy in self.policies)
        return f"egress gateway policy {named}".strip()


def behind(walk: PathBuilder, row: EgressGatewayPolicy) -> Behind:
    """Return the policies that are behind a row of a node's policy map; the walk's sender is the
    pod."""
    if not _listed(walk):
        return Behind(unread=_why_unread(walk))
    party = _sender(walk)
    found = tuple(
        policy
        for policy in walk.cluster.kube.egress_policies
        if row.destination in (policy.excluded if row.excluded else policy.destinations)
        and _selects(walk, policy, party).matches is not False
    )
    if not found:
        none = "no policy that was read selects the pod and has this CIDR"
        whole = lists.read(walk.cluster, RESOURCES[0])
        return Behind(unread=none, stale=whole is not None, evidence=cite.whole(whole))
    cited = tuple(each for policy in found for each in _cite(walk, policy))
    return Behind(found, evidence=cited)


def without_row(walk: PathBuilder, node: NodeView, destination: Address) -> None:
    """Report a policy that selects the pod and the destination, and that the node's map lacks.

    Args:
        walk: takes findings; its sender is the pod.
        node: the sender's node.
        destination: of the packet.
    """
    table, enabled = node[q.EGRESS_GATEWAY], node.config.egress_gateway
    if egress.in_cluster(walk, node, destination) or not (table.known or enabled is False):
        return
    party = _sender(walk)
    for policy in walk.cluster.kube.egress_policies:
        meant = any(destination in cidr for cidr in policy.destinations)
        meant = meant and not any(destination in cidr for cidr in policy.excluded)
        if not meant or not _selects(walk, policy, party).matches:
            continue
        if enabled is False:
            why = "the egress gateway is switched off (enable-ipv4-egress-gateway)"
            detail = "Cilium takes no policy in. Switch it on, or delete the policy."
        else:
            why = f"the map of {node.name} has no row of it"
            read_map = node.cilium("bpf egress list")
            detail = f"Its agent did not take it in: see its log, and `{read_map}`."
        walk.finding(
            Severity.WARNING,
            f"{policy.title} selects the pod and {destination}, and {why}",
            f"{detail} The packet leaves by {node.name} itself.",
            _cite(walk, policy) + cite.whole(table.record),
        )


def compare(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy, found: Behind) -> None:
    """Report where a row of a node's map and the policies disagree, or why these are not known.

    Args:
        walk: takes findings.
        node: whose map has the row.
        row: of the policy map.
        found: the policies behind it.
    """
    if found.stale:
        _say_stale(walk, node, row, found)
    elif found.unread:
        walk.finding(
            Severity.INFO,
            "the egress gateway policy that decides is not known by name",
            f"{found.unread[:1].upper()}{found.unread[1:]}.",
        )
    elif not row.excluded:
        differs = [
            _other_address(row, policy) or _other_gateway(walk, row, policy)
            for policy in found.policies
        ]
        _say_otherwise(walk, node, row, found, differs)


def compare_address(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy) -> None:
    """Report a gateway whose row has another egress address than the policy.

    Args:
        walk: takes findings.
        node: the gateway.
        row: of its map.
    """
    found = behind(walk, row)
    differs = [_other_address(row, policy) for policy in found.policies]
    _say_otherwise(walk, node, row, found, differs)


def _say_stale(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy, found: Behind) -> None:
    does = f"leads {row.source} → {row.destination} to an egress gateway"
    if row.excluded:
        does = f"keeps {row.source} → {row.destination} from its egress gateway (excludedCIDRs)"
    older = "" if egress.is_since_1_18(node) else ", unless a CiliumEgressNATPolicy makes the row "
    older += "(Cilium up to 1.12)" if older else ""
    walk.finding(
        Severity.WARNING,
        f"the map of {node.name} {does}, and no CiliumEgressGatewayPolicy does",
        f"The policy that selected the pod is gone, or was changed, and the agent on {node.name} "
        f"did not take that in{older}: see its log. `{node.cilium('bpf egress list')}` shows the "
        "row.",
        found.evidence + egress.evidence(node, row),
    )


def _say_otherwise(
    walk: PathBuilder,
    node: NodeView,
    row: EgressGatewayPolicy,
    found: Behind,
    differs: Sequence[str],
) -> None:
    """Report a row that every policy behind it would make otherwise."""
    if not differs or not all(differs):
        return
    walk.finding(
        Severity.WARNING,
        f"the map of {node.name} does not follow {found.title}: {differs[0]}",
        f"The map decides. The agent on {node.name} is behind the policy, or the nodes' labels and "
        f"addresses: its log tells why. `{node.cilium('bpf egress list')}` shows the row.",
        found.evidence + egress.evidence(node, row),
    )


def _other_address(row: EgressGatewayPolicy, policy: EgressPolicy) -> str:
    """Return that a row has none of the addresses that a policy asks for; "" where it has one, or
    the policy leaves the address to the gateway."""
    version, given = row.destination.version, row.egress_address
    asked = [g.address for g in policy.gateways if g.address and g.address.version == version]
    if given is None or not asked or len(asked) < len(policy.gateways) or given in asked:
        return ""
    return f"that has egressIP {' or '.join(map(str, asked))}, and the map {given}"


def _other_gateway(walk: PathBuilder, row: EgressGatewayPolicy, policy: EgressPolicy) -> str:
    """Return that a row leads to a node that a policy does not select; "" where that may be it."""
    named = walk.cluster.owner_of(row.gateway) if row.gateway is not None else ""
    chosen = [g.nodes for g in policy.gateways if g.nodes is not None]
    if not named or len(chosen) < len(policy.gateways):
        return ""
    if lists.read(walk.cluster, "nodes") is None:
        return ""
    hits = [selects(each, _as_party(dict(kube.labels))).matches for each in chosen
            for kube in walk.cluster.kube.nodes if kube.name == named]  # fmt: skip
    if not hits or any(hit is not False for hit in hits):
        return ""
    where = " or ".join(text.selector(each) for each in chosen)
    ready = ", ".join(name for each in chosen for name in _nodes(walk, each)) or "no node"
    return f"its nodeSelector ({where}) selects {ready}, and the map leads to {named}"


def no_gateway(walk: PathBuilder, row: EgressGatewayPolicy, found: Behind) -> tuple[str, str, Fix]:
    """Return why a row has no gateway: the title of the finding, its detail, and what to do.

    Args:
        walk: knows the nodes.
        row: of the policy map.
        found: the policies behind it.
    """
    title = (
        f"{found.title} for {row.source} → {row.destination} has no gateway node: what it selects "
        "is dropped"
    )
    if not found.policies:
        detail = "No node matches the policy's nodeSelector: label one."
        if found.stale:
            detail = (
                f"No CiliumEgressGatewayPolicy makes that row: the agent on {walk.sender.node} "
                "did not take in that its policy is gone, or was changed. Its log tells why."
            )
            return title, detail, see_agent(walk.cluster, detail, walk.sender.node).fix
        if found.unread:
            detail += f" Which policy it is is not known: {found.unread}."
        listed = Fix(detail, f"kubectl get {RESOURCES[0]} -o yaml")
        return title, detail, listed
    chosen = [each.nodes for each in found.policies[0].gateways if each.nodes is not None]
    asked = " or ".join(text.selector(each) for each in chosen)
    ready = [name for each in chosen for name in _nodes(walk, each)]
    if ready:
        detail = (
            f"Its nodeSelector ({asked}) selects {', '.join(ready)}, and the map has no gateway: "
            "the agents have not seen that label yet, or the CiliumNode lacks it."
        )
        return title, detail, Fix(detail, f"kubectl get ciliumnode {word(ready[0])} --show-labels")
    if lists.read(walk.cluster, "nodes") is None:
        detail = (
            f"Which nodes its nodeSelector ({asked}) selects is not known: not all Nodes were read."
        )
        return title, detail, Fix(detail, "kubectl get nodes --show-labels")
    detail = f"Its nodeSelector ({asked}) selects no node: label the one that is to be the gateway."
    labels = [r for each in chosen[:1] for r in each if r.operator == "In" and r.values]
    words = " ".join(word(f"{r.key}={r.values[0]}") for r in labels)
    return title, detail, Fix(detail, f"kubectl label node NODE {words}" if words else "")


def to_edit(walk: PathBuilder, node: NodeView, found: Behind) -> str:
    """Return the one object that a person would edit, or the agent that is behind, "" for none."""
    if found.stale:
        return see_agent(walk.cluster, "", node.name).object
    return found.object


def selects_nothing(walk: PathBuilder, found: Behind) -> str:
    """Return which nodeSelector of the policies behind a row selects no node, to follow "has no
    gateway node"; "" where one does, or that is not known."""
    if not found.policies or lists.read(walk.cluster, "nodes") is None:
        return ""
    chosen = [each.nodes for each in found.policies[0].gateways if each.nodes is not None]
    if not chosen or any(_nodes(walk, each) for each in chosen):
        return ""
    return f" (its nodeSelector {' or '.join(map(text.selector, chosen))} selects no node)"


def no_address(node: NodeView, found: Behind) -> str:
    """Return why a gateway has no egress address, in words of the policy."""
    wanted = [each for policy in found.policies for each in policy.gateways]
    addresses = [str(each.address) for each in wanted if each.address is not None]
    devices = [each.device for each in wanted if each.device]
    if addresses:
        return (
            f"The policy's egressIP {' or '.join(addresses)} is on no device of {node.name}: add "
            "it there, or name one that it has."
        )
    if devices:
        return f"The policy's interface {' or '.join(devices)} has no address on {node.name}."
    return "The policy's egressIP is on none of the node's devices, or its interface has none."


# --- objects --------------------------------------------------------------------------------------


def _listed(walk: PathBuilder) -> bool:
    return any(lists.read(walk.cluster, resource) is not None for resource in RESOURCES)


def _why_unread(walk: PathBuilder) -> str:
    for resource in RESOURCES:
        for record in lists.records_of(walk.cluster, resource):
            if record.denied:
                return f"this user may not {record.denied}"
            return record.error or f"the list of {resource} could not be read"
    return f"the records have no list of {RESOURCES[0]}"


def _sender(walk: PathBuilder) -> Party:
    endpoint, node = walk.endpoint, walk.cluster.node(walk.sender.node)
    if endpoint is None:
        return Party(frozenset(), frozenset({"*"}), "the pod's endpoint was not read")
    return policy_ends.subject(walk.cluster, node, endpoint.id)


def _selects(walk: PathBuilder, policy: EgressPolicy, party: Party) -> Hit:
    own = walk.cluster.kube_node(walk.sender.node)
    here = _as_party(dict(own.labels)) if own is not None else None
    hits = []
    for source in policy.sources:
        on = Hit(True)
        if source.nodes is not None:
            on = selects(source.nodes, here) if here else Hit(None, "the node was not read")
        hits.append(all_of((selects(source.pods, party), on)))
    return any_of(hits)


def _nodes(walk: PathBuilder, chosen: Selector) -> list[str]:
    return sorted(
        node.name
        for node in walk.cluster.kube.nodes
        if selects(chosen, _as_party(dict(node.labels))).matches
    )


def _as_party(labels: dict[str, str]) -> Party:
    return Party(frozenset(f"k8s:{key}={value}" for key, value in labels.items()))


def _cite(walk: PathBuilder, policy: EgressPolicy) -> tuple[Evidence, ...]:
    return cite.of(walk.cluster.api_record_of(policy), policy.span, keep=("metadata", "spec"))
