"""The check of a client's address by a frontend: loadBalancerSourceRanges.

The datapath has them in a map of their own, by the frontend's reverse NAT id. That decides; the
Service says what it should hold. Where the map was not read, the Service stands in for it.

Source: Cilium bpf/lib/lb.h (lb4_src_range_ok, lb6_src_range_ok), pkg/loadbalancer/maps
(SourceRange4Key); pkg/annotation, `service.cilium.io/src-ranges-policy`.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import SourceRange
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.path import Decides, Evidence, Finding, Fix, HopKind, Severity, State

_NAMED = 3
"""Ranges that a sentence names."""


def let_in(walk: PathBuilder, here: PacketState, service: ServiceAddress, device: str) -> bool:
    """Tell whether a frontend lets the packet's source in; drop the packet if not.

    Args:
        walk: takes hops and findings.
        here: the packet as it comes in.
        service: the frontend in that node's map.
        device: that it came in by.
    """
    if not service.checks_source:
        return True
    node, source = walk.cluster.node(here.node), here.packet.flow.source
    rows = _rows(node, service)
    if rows is None:
        walk.wanted.append((node.name, q.SOURCE_RANGES))
    mapped = tuple(row.prefix for row in rows) if rows is not None else None
    has = ranges_of(service)
    if mapped is None and not has:
        _not_known(walk, here, service, device)
        return True
    if mapped is None:
        walk.presumed.add(f"that {node.name} has the source ranges of {service.owner_title}")
    evidence = service.evidence + cite.of(
        node[q.SOURCE_RANGES].record, *(row.span for row in rows or ())
    )
    deny = "deny" in service.flags
    passes = _holds(source, has if mapped is None else mapped) != deny
    behind = _behind(service, mapped, node.name)
    if passes:
        if behind and _holds(source, has) == denies(service):
            walk.findings.append(_lets_in(service, source, behind, node.name, evidence))
        return True
    remedy = _remedy(walk, here, service, behind)
    walk.drop(
        *here.in_cilium(HopKind.LOAD_BALANCING, device),
        f"{service.title} does not let {source} in: Denied by LB src range check",
        State.DERIVED,
        here.packet,
        evidence,
        title=f"{service.owner_title} does not let {source} in",
        detail=f"{remedy.cause[0].upper()}{remedy.cause[1:]}.",
        cause=f"{service.owner_title} does not let {source} in: {remedy.cause}",
        fix=remedy.fix,
        object=remedy.object,
    )
    return False


def ranges_of(service: ServiceAddress) -> tuple[Network, ...]:
    """Return the ranges that the frontend's Service names, of both IP versions."""
    return service.owner.source_ranges if service.owner is not None else ()


def denies(service: ServiceAddress) -> bool:
    """Tell whether the Service has its ranges kept out, in place of let in."""
    owner = service.owner
    return owner is not None and owner.annotation(DENY).lower() == "deny"


DENY = "service.cilium.io/src-ranges-policy"


def _rows(node: NodeView, service: ServiceAddress) -> list[SourceRange] | None:
    """Return the map's rows of a frontend, None where they were not read."""
    version, table = service.address.version, node[q.SOURCE_RANGES]
    if not table.known or not service.rev_nat:
        return None
    rows = node.having(q.SOURCE_RANGES, service.rev_nat, "rev_nat")
    return [row for row in rows if row.prefix.version == version]


def _holds(source: Address, ranges: tuple[Network, ...]) -> bool:
    return any(source in each for each in ranges)


def _behind(service: ServiceAddress, mapped: tuple[Network, ...] | None, node: str) -> str:
    """Return how a node's map differs from the Service, as a clause; "" where it does not, or
    where either was not read."""
    if mapped is None or service.owner is None:
        return ""
    version = service.address.version
    wanted = {each for each in ranges_of(service) if each.version == version}
    deny = "deny" in service.flags
    if set(mapped) == wanted and deny == denies(service):
        return ""
    does = f"{'keeps' if deny else 'lets'} {_listed(mapped)} {'out' if deny else 'in'}"
    verb = "keep" if denies(service) else "let"
    return (
        f"Cilium on {node} is behind its Service: its map {does}, and the Service's "
        f"loadBalancerSourceRanges {verb} {_listed(sorted(wanted, key=str))} "
        f"{'out' if denies(service) else 'in'}"
    )


def _listed(ranges: tuple[Network, ...] | list[Network]) -> str:
    return few(ranges, _NAMED) or "nobody"


def _lets_in(
    service: ServiceAddress, source: Address, behind: str, node: str, evidence: tuple[Evidence, ...]
) -> Finding:
    return Finding(
        Severity.WARNING,
        f"{service.title} lets {source} in on {node}, and its Service does not",
        f"{behind}. The agent's connection to the API server, and its log, tell why.",
        evidence,
    )


def _not_known(walk: PathBuilder, here: PacketState, service: ServiceAddress, device: str) -> None:
    reason, fix = f"the source ranges of {service.title} are not recorded", None
    if service.owner is not None:
        reason = (
            f"Cilium's map on {here.node} lets only some sources in to {service.title}, and "
            "the Service has no loadBalancerSourceRanges (any more)"
        )
        fix = see_agent(walk.cluster, reason, here.node).fix
    walk.hop(
        *here.in_cilium(HopKind.LOAD_BALANCING, device),
        f"{service.title} lets some source ranges in", State.UNKNOWN, here.packet,
        service.evidence, reason=reason, decides=Decides.DROP, fix=fix,
    )  # fmt: skip


def _remedy(walk: PathBuilder, here: PacketState, service: ServiceAddress, behind: str) -> Remedy:
    """Return why a source is not let in, and what to edit."""
    source, has = here.packet.flow.source, ranges_of(service)
    if behind and _holds(source, has) != denies(service):
        return see_agent(walk.cluster, behind, here.node)
    own = f"Service {service.namespace}/{service.name}" if service.name else ""
    edit = commands.edit_service(service.namespace, service.name) if service.name else ""
    if service.owner is None:
        return Remedy(
            f"Cilium's map on {here.node} has no range that lets it in",
            Fix("Ask from an address that it lets in.", edit), own,
        )  # fmt: skip
    cause = f"its loadBalancerSourceRanges are {', '.join(map(str, has))}"
    if "deny" in service.flags:
        holding = _listed([each for each in has if source in each])
        return Remedy(
            f"{cause}, which {DENY} keeps out",
            Fix(
                f"Remove {holding} from loadBalancerSourceRanges of Service {service.name}, or "
                f"the annotation {DENY}.",
                edit,
            ),
            own,
        )
    if not any(each.version == source.version for each in has):
        cause += f", none of IPv{source.version}"
    return Remedy(
        cause,
        Fix(
            f"Add {source} to loadBalancerSourceRanges of Service {service.name}, or ask from an "
            "address that is in them.",
            edit,
        ),
        own,
    )
