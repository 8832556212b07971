"""netfilter in a pod's own namespace: what a sidecar, or a privileged container, has put there.

A node pod reads it by the node's own programs; an agent cannot, and then none is presumed. Rules
that send a pod's packets to a process in the pod itself (a service mesh's sidecar) end the packet's
own way: that process opens a connection of its own.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.stages.device_hooks import device_chains, pass_chains
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.nat import nat_outcome
from kubectl_ebpfnet.explain.path.stages.passage import rules_evidence
from kubectl_ebpfnet.explain.path.stages.rule_hops import Passing
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, Packet, State

_OUT = (
    ("OUTPUT", ("raw", "mangle", "nat", "filter")),
    ("POSTROUTING", ("mangle", "nat", "filter")),
)
_IN = (("PREROUTING", ("raw", "mangle", "nat", "filter")), ("INPUT", ("mangle", "filter")))


def may_leave(walk: PathBuilder, netns: PodNetns, packet: Packet, device: str) -> bool:
    """Let a packet pass its own pod's netfilter; return whether it goes on.

    Args:
        walk: takes the hops.
        netns: of the pod that sends it.
        packet: as the pod routes it.
        device: by which it leaves.
    """
    rules = _rules(walk, netns, packet)
    if rules is None:
        return True
    context = Context(packet.flow, "", device, NOT_KNOWN, state=_state(walk))
    here = _passing(walk, netns, packet, context)
    if not _pass_hooks(here, rules, _OUT):
        return False
    return pass_chains(here, rules, device_chains(rules, device, "egress"), device, "egress")


def may_come_in(walk: PathBuilder, netns: PodNetns, packet: Packet, device: str) -> bool:
    """Let a packet pass the netfilter of the pod that receives it; return whether it goes on.

    Args:
        walk: takes the hops.
        netns: of the pod.
        packet: as it comes to the pod.
        device: of the pod, by which it comes in.
    """
    rules = _rules(walk, netns, packet)
    if rules is None:
        return True
    here = _passing(walk, netns, packet, Context(packet.flow, device, ""))
    chains = device_chains(rules, device, "ingress")
    if not pass_chains(here, rules, chains, device, "ingress"):
        return False
    here.context = replace(here.context, in_device=device, tracked=True, state=_state(walk))
    return _pass_hooks(here, rules, _IN)


def _state(walk: PathBuilder) -> str:
    """Return conntrack's word for what walks: a packet, or the answer to one."""
    return "NEW" if walk.forth is None else "ESTABLISHED"


def _rules(walk: PathBuilder, netns: PodNetns, packet: Packet) -> HookTables | None:
    """Return the pod's rules; None where nobody read any."""
    rules = tables_of(netns, packet.flow.destination.version)
    pod = netns.places[0]
    what = f"netfilter in pod {pod.namespace}/{pod.pod}"
    if rules.printed:
        walk.hop(
            *_place(walk, netns), what, State.UNKNOWN, packet, cite.whole(rules.record),
            reason=rules.missing, decides=Decides.DROP,
            fix=Fix(f"Read the rules in {pod.namespace}/{pod.pod}.", "nft list ruleset"),
        )  # fmt: skip
    elif rules.native is None:
        walk.presumed.add(f"{what} (by a node pod)", Look.LAST)
    return rules if rules.native is not None or rules.back_ends else None


def _place(walk: PathBuilder, netns: PodNetns) -> Where:
    pod = netns.places[0]
    found = walk.cluster.pod(pod.namespace, pod.pod)
    node = found.node if found is not None else ""
    return HopPlace.POD, f"{pod.namespace}/{pod.pod}", node, HopKind.RULE


def _passing(walk: PathBuilder, netns: PodNetns, packet: Packet, context: Context) -> Passing:
    where = _place(walk, netns)
    name = where[1]
    local = frozenset(netns.own_addresses) or None
    return Passing(walk, where, f"pod {name}", packet, replace(context, local=local, bridged=False))


def _pass_hooks(
    here: Passing, rules: HookTables, way: tuple[tuple[str, tuple[str, ...]], ...]
) -> bool:
    for chain, tables in way:
        for table in tables:
            if table == "nat":
                _nat(here, rules, chain)
            elif not here.passes(rules.traverse(table, chain, here.context)):
                return False
        here.show_doubt()
        here.doubts.clear()
    return True


def _nat(here: Passing, rules: HookTables, chain: str) -> None:
    """Say where a rule of the pod sends the packet elsewhere, or may; a new source of the pod's own
    device changes nothing."""
    if here.context.state != "NEW":
        return
    nat = nat_outcome(rules, chain, here.context)
    moved = [(by, end) for by, end in nat.ends if end.target not in ("ACCEPT", "MASQUERADE")]
    if not moved:
        return
    end = moved[0][1]
    sure = len(moved) == len(nat.ends) and not end.doubt
    rule = end.rule.title if end.rule is not None else "a rule"
    stays = chain == "PREROUTING" and all(end.target == "REDIRECT" for _, end in moved)
    to = f" to port {end.to_address.removeprefix(':')} of the pod" if end.to_address else ""
    reason = nat.doubt or f"a process there decides what becomes of it ({rule})"
    here.walk.hop(
        *here.where[:3],
        HopKind.NAT,
        f"netfilter {chain} in the pod {'translates' if sure else 'may translate'} it"
        f"{to if end.target == 'REDIRECT' else ''}: {rule}",
        State.DERIVED if sure and stays else State.UNKNOWN,
        here.packet,
        tuple(piece for by, end in moved[:3] for piece in rules_evidence(by, end.way)),
        reason="" if sure and stays else reason,
        decides=Decides.NOTHING if stays else Decides.WAY,
        fix=Fix(f"See in {here.place} which of these rules' counters grow.", "iptables-save -c"),
    )
