"""A Service's address that no rule of netfilter translates on a node: kube-proxy is behind, its
chains are not hooked in, or another balances.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import kube_proxy, kube_proxy_nft
from kubectl_ebpfnet.explain.kernel.kube_proxy_dead_end import DeadEnd, dead_end
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import left_alone
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables
from kubectl_ebpfnet.explain.path.stages.kube_proxy_cause import by_reason, restart, title
from kubectl_ebpfnet.explain.path.stages.passage import rules_evidence
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Severity, State


def not_translated(
    walk: PathBuilder,
    here: PacketState,
    rules: HookTables,
    service: ServiceAddress,
    chain: str,
) -> PacketState | None:
    """Say why no rule translates a Service's address, and go on with the packet as it is.

    Args:
        walk: takes the hop and findings.
        here: the packet, with its `netfilter` for this hook.
        rules: of the node.
        service: that the packet is for.
        chain: `PREROUTING` or `OUTPUT`.

    Returns:
        None where the walk ends here: a Service's backend is not known.
    """
    node = walk.cluster.node(here.node)
    if walk.cluster.node_of(service.address) not in ("", here.node):
        return here  # a node port of another node, which balances it itself
    own = (service.address, service.port)
    if service.usable and all(kinds.place(each) == own for each in service.usable):
        return here  # a hostPort of a hostNetwork pod: the node's own process, and no rule of it
    found = _where_left(here, rules, service, chain)
    if node.config.kube_proxy_replacement and (found is None or found[0].broken):
        return here  # rules that kube-proxy left behind have nothing to translate
    if found is not None:
        return _left_alone(walk, here, service, *found)
    modes = [kube_proxy.has_kube_proxy(each.ruleset) for each in rules.back_ends]
    return _without_kube_proxy(walk, here, rules, service, ipvs="ipvs" in modes)


def _where_left(
    here: PacketState, rules: HookTables, service: ServiceAddress, chain: str
) -> tuple[DeadEnd, tuple[Evidence, ...]] | None:
    """Return where kube-proxy's rules leave a packet, and the proof; None without such rules."""
    assert here.netfilter is not None
    native = rules.native.ruleset if rules.native is not None else None
    if native is not None and kube_proxy_nft.has_kube_proxy(native, service.address.version):
        dead = kube_proxy_nft.dead_end(native, here.netfilter, chain.lower())
        return dead, rules.evidence(dead.way) or cite.whole(rules.own_record)
    for back_end in rules.back_ends:
        if kube_proxy.has_kube_proxy(back_end.ruleset) == "iptables":
            dead = dead_end(back_end.ruleset, here.netfilter, chain)
            return dead, rules_evidence(back_end, dead.way) or cite.whole(back_end.record)
    return None


def _left_alone(
    walk: PathBuilder,
    here: PacketState,
    service: ServiceAddress,
    dead: DeadEnd,
    proof: tuple[Evidence, ...],
) -> PacketState:
    """Say where kube-proxy's rules leave the packet."""
    walk.hop(
        *here.on_node(HopKind.LOAD_BALANCING),
        f"{service.title} is not translated: {dead.text}",
        State.DERIVED, here.packet, service.evidence + proof,
        short=f"{service.owner_title} is not translated: {dead.text}",
    )  # fmt: skip
    why = left_alone(dead.way)
    if why is not None:
        walk.left_alone = by_reason(walk, here.node, here.packet.flow, why, dead.text)
    if dead.broken and service.usable and not _is_for_others(service):
        does_not = f"kube-proxy's rules on {here.node} do not translate {service.title}"
        walk.left_alone = Remedy(f"{does_not}: {dead.text}", restart(here.node), title(here.node))
        walk.finding(
            Severity.ERROR,
            does_not,
            f"{dead.text}: a new connection goes on to the Service's own address. kube-proxy does "
            "not run there, or something else changed its rules; its log tells, and a restart "
            f"writes them anew: `{restart(here.node).command}`",
            proof,
        )
    return here


def _is_for_others(service: ServiceAddress) -> bool:
    """Tell whether kube-proxy leaves a Service to others: to a proxy that a label names, or an
    address to the load-balancer that has it (KEP-1860)."""
    owner = service.owner
    if owner is None:
        return False
    proxied = service.address in owner.proxied_addresses
    return proxied or bool(dict(owner.labels).get("service.kubernetes.io/service-proxy-name"))


def _without_kube_proxy(
    walk: PathBuilder, here: PacketState, rules: HookTables, service: ServiceAddress, *, ipvs: bool
) -> PacketState | None:
    """Say what is known of a Service's address where kube-proxy has no rules that were read."""
    where = here.on_node(HopKind.LOAD_BALANCING)
    if not ipvs and rules.native is not None and not rules.native.missing:
        nothing = f"neither iptables nor nftables has rules of kube-proxy on {here.node}"
        return _left_alone(
            walk, here, service, DeadEnd(nothing, broken=True), cite.whole(rules.own_record)
        )
    by = "IPVS" if ipvs else "kube-proxy in its nftables mode"
    unread = "the kernel's IPVS table" if ipvs else "`nft -j list ruleset`"
    reason = (
        f"no rule of iptables translates it; {by} may, and {unread} of {here.node} was not read"
    )
    by_flow = like_newest_flow(walk, here, service.title, reason)
    if by_flow is not None:
        return by_flow
    fix = Fix(f"See what IPVS has on {here.node}.", "ipvsadm -Ln") if ipvs else None
    walk.hop(
        *where, service.title, State.UNKNOWN, here.packet, service.evidence,
        reason=reason, decides=Decides.WAY, fix=fix,
    )  # fmt: skip
    walk.unknown(f"which backend {service.title} leads to is not known: {reason}", fix)
    return None


def like_newest_flow(
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
        short="by kube-proxy's rules, as nf_conntrack shows",
    )  # fmt: skip
    assert here.netfilter is not None
    context = replace(here.netfilter, flow=new, translated=True, original=flow)
    return here.to(here.stage, packet=packet, netfilter=context)
