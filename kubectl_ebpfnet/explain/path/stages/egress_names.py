"""Which policy of the egress gateway is behind a row of the policy map, and what a person edits in
it.

A row has no name. Its pod is selected by the policy, and its prefix is one of the policy's CIDRs;
the gateway is the first node by name that a nodeSelector selects (pkg/egressgateway/policy.go).
Where the objects and the map disagree, that is a finding.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import egress_gateway as egress
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


def say_unnamed(walk: PathBuilder, node: NodeView, found: Behind) -> None:
    """Say why the policy behind a row of a node's map has no name, or that there is none."""
    if found.stale and egress.is_since_1_18(
        node
    ):  # before, a CiliumEgressNATPolicy may be behind it
        walk.finding(
            Severity.WARNING,
            f"the map of {node.name} leads the packet to an egress gateway, and no policy does",
            "The policy that selected the pod is gone, or was changed, and the agent did not take "
            f"that in: see its log. `{node.cilium('bpf egress list')}` shows the row.",
            found.evidence,
        )
    elif found.unread:
        walk.finding(
            Severity.INFO,
            "the egress gateway policy that decides is not known by name",
            f"{found.unread[:1].upper()}{found.unread[1:]}.",
        )


def no_gateway(walk: PathBuilder, row: EgressGatewayPolicy, found: Behind) -> tuple[str, str, Fix]:
    """Return why a row has no gateway: the title of the finding, its detail, and what to do.

    Args:
        walk: knows the nodes.
        row: of the policy map.
        found: the policies behind it.
    """
    title = f"{found.title} for {row.source} → {row.destination} has no gateway node"
    if not found.policies:
        detail = "No node matches the policy's nodeSelector: label one."
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
        detail = f"Which nodes its nodeSelector ({asked}) selects is not known: none were listed."
        return title, detail, Fix(detail, "kubectl get nodes --show-labels")
    detail = f"Its nodeSelector ({asked}) selects no node: label the one that is to be the gateway."
    labels = [r for each in chosen[:1] for r in each if r.operator == "In" and r.values]
    words = " ".join(word(f"{r.key}={r.values[0]}") for r in labels)
    return title, detail, Fix(detail, f"kubectl label node NODE {words}" if words else "")


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
