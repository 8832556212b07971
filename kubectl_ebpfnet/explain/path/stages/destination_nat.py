"""Destination NAT by netfilter as a packet comes into a node's stack: kube-proxy's rules, and
those of others.

The chains are followed by what their rules say, not by what a Service should have: an empty chain
translates nothing, and an old entry of nf_conntrack proves nothing about a new connection.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import kube_proxy
from kubectl_ebpfnet.explain.kernel.netfilter import TRANSLATING, ChainEnd
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.services import ServiceAddress
from kubectl_ebpfnet.explain.path.stages import reply_nat
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.nat import NatOutcome, nat_outcome, untracked
from kubectl_ebpfnet.explain.path.stages.passage import BackEnd, Native, rules_evidence
from kubectl_ebpfnet.explain.path.state import Choice, PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Severity, State

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
            )  # fmt: skip
        return here
    if not rules.back_ends:
        return _not_read(walk, here, rules, service, chain)
    nat = nat_outcome(rules, chain, context)
    passed = nat.outcomes[-1].passed or context
    here = here.to(here.stage, netfilter=replace(passed, state=context.state))
    targets = _targets(nat)
    if targets:
        return _translated(walk, here, nat, targets, service)
    if nat.translates is not False:
        _undecided(walk, here, nat)
    elif service is not None and not rules.missing:
        return _not_translated(walk, here, rules, service, chain)
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
    always = all(_target(end) is not None for _, end in nat.ends)
    sure = always and (nat.by_chance or len(targets) == 1)
    new = flow.with_destination(*target)
    if is_seen and entry is not None and entry.original.source == flow.source:
        new = replace(new, source_port=flow.source_port or entry.original.source_port)
    proof = tracked.evidence if is_seen and tracked is not None else ()
    packet = replace(here.packet, flow=new)
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING),
        _summary(len(targets), service, flow, target, end, is_seen),
        State.UNKNOWN if not sure else State.OBSERVED if is_seen else State.DERIVED,
        packet,
        (service.evidence if service is not None else ())
        + rules_evidence(back_end, end.way)
        + proof,
        reason="" if sure else nat.doubt or "another rule may send it elsewhere",
        decides=Decides.WAY,
    )
    if sure and service is not None and len(targets) > 1 and walk.choice is None:
        others = tuple(_backend(end, flow) for end in targets if end != target)
        walk.choice = Choice(len(walk.hops), service.title, endpoint_text(*target), others)
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
    number: int,
    service: ServiceAddress | None,
    flow: Flow,
    target: End,
    end: ChainEnd,
    is_seen: bool,
) -> str:
    """Return what the rules do in words: `svc … → backend by netfilter's rules of kube-proxy`."""
    what = endpoint_text(flow.destination, flow.destination_port)
    if service is not None:
        what = service.title
    chains = [
        r.jump
        for r in end.way
        if isinstance(r, NetfilterRule) and r.jump.startswith(kube_proxy.CHOOSING)
    ]
    words = chains[-1:]
    if number > 1:
        ends = "backends" if service is not None else "destinations"
        how = "chosen for the newest flow" if is_seen else "followed here"
        words.append(f"{how}, one of {number} {ends}")
    by = "netfilter's rules of kube-proxy"
    if not chains and end.rule is not None:
        by = end.rule.title
    named = f" ({'; '.join(words)})" if words else ""
    return f"{what} → {endpoint_text(*target)} by {by}{named}"


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
    by_flow = _like_newest_flow(walk, here, what, rules.missing)
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


def _like_newest_flow(
    walk: PathBuilder, here: PacketState, what: str, doubt: str
) -> PacketState | None:
    """Translate the destination as nf_conntrack does for the newest flow; None where it does not.

    Args:
        walk: takes the hop.
        here: the packet.
        what: the destination, in words.
        doubt: why a new connection need not be translated the same way.
    """
    flow, tracked = here.packet.flow, tracked_at(walk, here)
    entry = tracked.netfilter if tracked is not None else None
    if entry is None or tracked is None or not entry.destination_nat:
        return None
    seen = entry.translated()
    new = flow.with_destination(seen.destination, seen.destination_port)
    packet, now = replace(here.packet, flow=new), walk.answered_now()
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING),
        f"{what} → {endpoint_text(seen.destination, seen.destination_port)} by netfilter's rules "
        "of kube-proxy, as nf_conntrack shows for the newest flow",
        State.OBSERVED if now else State.UNKNOWN, packet, tracked.evidence,
        reason="" if now else doubt, decides=Decides.WAY,
    )  # fmt: skip
    assert here.netfilter is not None
    context = replace(here.netfilter, flow=new, translated=True, original=flow)
    return here.to(here.stage, packet=packet, netfilter=context)


def _without_iptables(
    walk: PathBuilder, here: PacketState, rules: HookTables, service: ServiceAddress, *, ipvs: bool
) -> PacketState | None:
    """Say what is known of a Service's address where kube-proxy has no rules of iptables."""
    where = here.on_node(HopKind.LOAD_BALANCING)
    if not ipvs and rules.native is not None and not rules.native.missing:
        walk.hop(
            *where,
            f"{service.title} is not translated: no rule of iptables or nftables does it",
            State.DERIVED, here.packet, service.evidence + cite.whole(rules.native.record),
        )  # fmt: skip
        return here
    by = "IPVS" if ipvs else "kube-proxy in its nftables mode"
    reason = f"no rule of iptables translates it; {by} may, whose table was not read"
    by_flow = _like_newest_flow(walk, here, service.title, reason)
    if by_flow is not None:
        return by_flow
    walk.hop(
        *where, service.title, State.UNKNOWN, here.packet, service.evidence,
        reason=reason, decides=Decides.WAY,
    )  # fmt: skip
    walk.unknown(f"which backend {service.title} leads to is not known: {reason}")
    return None


def _not_translated(
    walk: PathBuilder,
    here: PacketState,
    rules: HookTables,
    service: ServiceAddress,
    chain: str,
) -> PacketState | None:
    """Say why no rule translates a Service's address: kube-proxy is behind, or another balances."""
    assert here.netfilter is not None
    node = walk.cluster.node(here.node)
    if walk.cluster.node_of(service.address) not in ("", here.node):
        return here  # a node port of another node, which balances it itself
    where = here.on_node(HopKind.LOAD_BALANCING)
    modes = [kube_proxy.has_kube_proxy(each.ruleset) for each in rules.back_ends]
    if "iptables" not in modes:
        ipvs, by_cilium = "ipvs" in modes, node.config.kube_proxy_replacement
        return here if by_cilium else _without_iptables(walk, here, rules, service, ipvs=ipvs)
    back_end = rules.back_ends[modes.index("iptables")]
    dead = kube_proxy.dead_end(back_end.ruleset, here.netfilter, chain)
    proof = rules_evidence(back_end, dead.way) or cite.whole(back_end.record)
    walk.hop(
        *where, f"{service.title} is not translated: {dead.text}", State.DERIVED, here.packet,
        service.evidence + proof,
    )  # fmt: skip
    if dead.broken and service.usable:
        walk.finding(
            Severity.ERROR,
            f"kube-proxy's rules on {here.node} do not translate {service.title}",
            f"{dead.text}: a new connection goes on to the Service's own address. kube-proxy does "
            "not run there, or something else changed its rules; its log tells, and a restart "
            "writes them anew.",
            proof,
        )
    return here
