"""Destination NAT by netfilter as a packet comes into a node's stack: kube-proxy's rules, and
those of others.

The chains are followed by what their rules say, not by what a Service should have: an empty chain
translates nothing, and an old entry of nf_conntrack proves nothing about a new connection.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import kube_proxy, kube_proxy_nft
from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING, ChainEnd
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import is_kube_proxys
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.stages import kube_proxy_behind, reply_nat
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.nat import NatOutcome, nat_outcome, untracked
from kubectl_ebpfnet.explain.path.stages.passage import BackEnd, Native, rules_evidence
from kubectl_ebpfnet.explain.path.stages.untranslated import like_newest_flow, not_translated
from kubectl_ebpfnet.explain.path.state import Choice, PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.nft import AnyRule
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Outcome, State

End = tuple[Address, int | None]
"""A destination: address and port."""
_SAVE = "iptables-save -c"


def translate(
    walk: PathBuilder, here: PacketState, node: NodeView, chain: str
) -> PacketState | None:
    """Apply nat PREROUTING or OUTPUT; return the packet with its destination then.

    Args:
        walk: takes the hop.
        here: the packet, with its `netfilter` for this hook.
        node: the node.
        chain: `PREROUTING` or `OUTPUT`.

    Returns:
        None where the walk ends here: a Service's backend is not known.
    """
    context = here.netfilter
    assert context is not None
    if walk.forth is not None:
        return reply_nat.undo(walk, here, reply_nat.Undone.AS_IT_COMES)
    rules = tables_of(node, here.packet.flow.destination.version)
    service = walk.ends.service
    if service is not None and here.packet.flow.destination != service.address:
        service = None
    if context.state == "UNTRACKED":  # nat leaves alone what is not tracked
        if service is not None:
            why, proof = untracked(rules, context)
            walk.hop(
                *here.on_node(HopKind.LOAD_BALANCING), f"{service.title} is not translated: {why}",
                State.DERIVED, here.packet, service.evidence + proof,
                short=f"{service.owner_title} is not translated: {why}",
            )  # fmt: skip
        return here
    if not rules.back_ends:
        return _not_read(walk, here, rules, service, chain)
    nat = nat_outcome(rules, chain, context)
    passed = nat.outcomes[-1].passed or context
    here = here.to(here.stage, netfilter=replace(passed, state=context.state))
    targets = _targets(nat)
    without_port = service is None and here.packet.flow.destination_port is None
    if targets and not (without_port and not _always(nat)):
        return _translated(walk, here, nat, targets, service)
    if nat.translates is not False:
        _undecided(walk, here, nat)
    elif service is not None and not rules.missing:
        return not_translated(walk, here, rules, service, chain)
    return here


def _targets(nat: NatOutcome) -> dict[End, tuple[BackEnd | Native, ChainEnd]]:
    """Return the destinations that the packet may get, each with the first end that names it."""
    found: dict[End, tuple[BackEnd | Native, ChainEnd]] = {}
    for back_end, end in nat.ends:
        target = _target(end)
        if target is not None:
            found.setdefault(target, (back_end, end))
    return found


def _target(end: ChainEnd) -> End | None:
    """Return where an end sends the packet; None where it does not, or that is not known."""
    if end.target != "DNAT":
        return None
    return kube_proxy.destination(end.to_address, end.context.flow)


def _always(nat: NatOutcome) -> bool:
    """Tell whether the packet gets another destination at every end that it may come to."""
    return all(_target(end) is not None for _, end in nat.ends)


def _translated(
    walk: PathBuilder,
    here: PacketState,
    nat: NatOutcome,
    targets: dict[End, tuple[BackEnd | Native, ChainEnd]],
    service: ServiceAddress | None,
) -> PacketState:
    """Give the packet its new destination: the newest flow's, if the rules may still choose it."""
    flow, tracked = here.packet.flow, tracked_at(walk, here)
    entry = tracked.netfilter if tracked is not None else None
    seen = entry.translated() if entry is not None and entry.destination_nat else None
    to = (seen.destination, seen.destination_port) if seen is not None else None
    forced = kinds.place(walk.forced) if walk.forced is not None else None
    is_seen = to is not None and to in targets and forced not in targets
    target = next((end for end in (forced, to) if end in targets), None) or next(iter(targets))
    back_end, end = targets[target]
    sure = _always(nat) and (nat.by_chance or len(targets) == 1)
    new = flow.with_destination(*target)
    if is_seen and entry is not None and entry.original.source == flow.source:
        new = replace(new, source_port=flow.source_port or entry.original.source_port)
    proof = tracked.evidence if is_seen and tracked is not None else ()
    packet = replace(here.packet, flow=new)
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING),
        _summary(nat, service, flow, target, _how_chosen(len(targets), service, is_seen)),
        State.UNKNOWN if not sure else State.OBSERVED if is_seen else State.DERIVED,
        packet,
        (service.evidence if service is not None else ())
        + rules_evidence(back_end, end.way)
        + proof,
        reason="" if sure else nat.doubt or "another rule may send it elsewhere",
        decides=Decides.WAY,
        short=_in_short(nat, service, target),
    )
    if sure and service is not None and len(targets) > 1 and walk.choice is None:
        others = tuple(_backend(end, flow) for end in targets if end != target)
        walk.choice = Choice(len(walk.hops), service.title, endpoint_text(*target), others)
    if sure and service is not None and is_kube_proxys(end.rule):
        places = [kinds.place(_backend(end, flow)) for end in targets]
        chosen = kinds.place(_backend(target, flow))
        proof = rules_evidence(back_end, end.way)
        answered = is_seen and tracked is not None and tracked.outcome is Outcome.ANSWERED
        meets = kube_proxy_behind.Meets(chosen, places, answered=answered)
        kube_proxy_behind.report(walk, here.node, service, meets, proof)
    if seen is not None and tracked is not None and to not in targets and walk.answered_now():
        walk.contradicts(
            f"nf_conntrack has {flow} sent to "
            f"{endpoint_text(seen.destination, seen.destination_port)}, which no rule names now",
            tracked.evidence,
        )
    state = here.netfilter.state if here.netfilter is not None else ""
    context = replace(
        end.context, flow=new, translated=True, original=flow, assumed=(), state=state
    )
    return here.to(here.stage, packet=packet, netfilter=context)


def _backend(end: End, flow: Flow) -> Backend:
    address, port = end
    return Backend(address, port or flow.destination_port or 0, flow.protocol)


def _summary(
    nat: NatOutcome, service: ServiceAddress | None, flow: Flow, target: End, how: str
) -> str:
    """Return what the rules do in words: `svc … → backend by netfilter's rules of kube-proxy`."""
    what = endpoint_text(flow.destination, flow.destination_port)
    if service is not None:
        what = service.title
    end = next(end for _, end in nat.ends if _target(end) == target)
    chains = [name for rule in end.way if (name := _chosen_in(rule))]
    words = [*chains[-1:], *filter(None, [how])]
    if how and nat.by_affinity:
        words.append("session affinity: a client that came before keeps its own")
    by = "netfilter's rules of kube-proxy"
    if not chains and end.rule is not None:
        by = end.rule.title
    named = f" ({'; '.join(words)})" if words else ""
    return f"{what} → {endpoint_text(*target)} by {by}{named}"


def _in_short(nat: NatOutcome, service: ServiceAddress | None, target: End) -> str:
    """Return whose rules translate: `svc shop/web, by kube-proxy's rules`."""
    end = next(end for _, end in nat.ends if _target(end) == target)
    by = "by kube-proxy's rules"
    if end.rule is not None and not any(_chosen_in(rule) for rule in end.way):
        by = f"by {end.rule.title}"
    return f"{service.owner_title}, {by}" if service is not None else by


def _how_chosen(number: int, service: ServiceAddress | None, is_seen: bool) -> str:
    """Return how one of several destinations was chosen, "" where there is one alone."""
    if number == 1:
        return ""
    ends = "backends" if service is not None else "destinations"
    return f"{'chosen for the newest flow' if is_seen else 'followed here'}, one of {number} {ends}"


def _chosen_in(rule: AnyRule) -> str:
    """Return the chain of kube-proxy's that chooses an endpoint, where a rule leads to it or is of
    it; "" for another rule."""
    if isinstance(rule, NetfilterRule):
        return rule.jump if rule.jump.startswith(kube_proxy.CHOOSING) else ""
    chooses = is_kube_proxys(rule) and rule.chain.startswith(kube_proxy_nft.CHOOSING)
    return rule.chain if chooses else ""


def _undecided(walk: PathBuilder, here: PacketState, nat: NatOutcome) -> None:
    """Add the hop of a packet that may be translated, to what is not known."""
    translating = [end.rule for _, end in nat.ends if end.target in TRANSLATING and end.rule]
    reason = nat.doubt
    if translating and not reason:
        reason = f"where {translating[0].title} sends it is not known"
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING),
        f"netfilter may send it elsewhere than to {here.packet.flow.destination}",
        State.UNKNOWN,
        here.packet,
        rules_evidence(nat.ends[0][0], (*nat.open_rules, *translating)),
        reason=reason,
        decides=Decides.WAY,
        fix=Fix(f"See on {here.node} whether the rule's counter grows.", _SAVE),
    )


def _not_read(
    walk: PathBuilder,
    here: PacketState,
    rules: HookTables,
    service: ServiceAddress | None,
    chain: str,
) -> PacketState | None:
    """Go on where the rules are not known: as the newest flow went, or past Services alone."""
    flow = here.packet.flow
    fix = Fix(f"Read the rules on {here.node}.", _SAVE)
    what = service.title if service is not None else str(flow.destination)
    by_flow = like_newest_flow(walk, here, what, rules.missing)
    if by_flow is not None:
        return by_flow
    if service is None:
        walk.hop(
            *here.on_node(HopKind.RULE), f"netfilter {chain}", State.UNKNOWN, here.packet,
            cite.whole(rules.record), reason=rules.missing, decides=Decides.WAY, fix=fix,
        )  # fmt: skip
        return here
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING), what, State.UNKNOWN, here.packet,
        service.evidence, reason=rules.missing, decides=Decides.WAY, fix=fix,
    )  # fmt: skip
    walk.unknown(f"which backend netfilter would choose is not known: {rules.missing}", fix)
    return None
