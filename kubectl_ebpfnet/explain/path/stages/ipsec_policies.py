"""IPsec policies: which packets the sender's kernel encrypts, and which decrypted ones it takes.

Of the policies that select a packet the one of the lowest priority counts. Without one it is sent
as it is; one that blocks drops it (XfrmOutPolBlock): Cilium has one, of the least importance, for
what it marked and no other one takes. What was decrypted in tunnel mode and no policy takes is
dropped by the stack (XfrmInNoPols), but not where a program of Cilium's hands it to the pod.

Sources: Linux net/xfrm/xfrm_policy.c (xfrm_lookup_with_ifid, __xfrm_policy_check); Cilium
pkg/datapath/linux/ipsec (IPsecDefaultDropPolicy).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.encryption import XfrmPolicy, XfrmState
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Severity, State

LIST = "ip xfrm policy list"
_OF_CILIUM = 0xE00, 0xF00
"""Mark and mask of what Cilium has encrypted (MARK_MAGIC_ENCRYPT)."""


def lets_out(
    walk: PathBuilder, here: PacketState, node: NodeView, state: XfrmState | None, fix: Fix
) -> bool | None:
    """Ask the sender's policies about a packet.

    Args:
        walk: takes hops and findings.
        here: the packet, before it is encrypted.
        node: that sends it.
        state: that would encrypt it, None where that is not known.
        fix: that lets the agent set its policies anew.

    Returns:
        True where it is encrypted, as far as is known; False where it is sent as it is; None where
        a policy drops it.
    """
    table = node[q.XFRM_POLICIES]
    if not table.known:
        walk.presumed.add(f"IPsec's policies on {here.node} (`{LIST}`)")
        return True
    found = _selecting(table.facts, here, "out")
    allowing = [policy for policy in found if policy.action != "block"]
    if not found:
        _sent_as_it_is(walk, here, node, fix)
        return False
    first, proof = found[0], cite.of(table.record, found[0].span)
    alone = not allowing or first.priority < allowing[0].priority
    if first.action == "block" and alone and _is_sure(first, state):
        _drop(walk, here, first, proof, fix)
        return None
    doubt = ""
    if not allowing or first.action == "block":
        doubt = f"whether the policy {_text(first)}, which blocks, takes the packet is not known"
    elif state is not None and not any(
        not policy.ends or state.destination in policy.ends for policy in allowing
    ):
        ends = ", ".join(str(end) for policy in allowing for end in policy.ends)
        doubt = (
            f"no policy of {here.node} that takes the packet uses the state to "
            f"{state.destination}: they want one to {ends}"
        )
    if doubt and not walk.answered_now():
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL), "a policy of IPsec may lose it", State.UNKNOWN,
            here.packet, proof, reason=doubt, decides=Decides.DROP, fix=fix,
        )  # fmt: skip
    return True


def lets_in(walk: PathBuilder, here: PacketState, node: NodeView, fix: Fix) -> None:
    """Leave it open whether the stack takes what was decrypted, where no policy does.

    Args:
        walk: takes the hop.
        here: the packet, decrypted.
        node: that decrypted it.
        fix: that lets the agent set its policies anew.
    """
    table = node[q.XFRM_POLICIES]
    if not table.known:
        walk.presumed.add(f"IPsec's policies on {here.node} (`{LIST}`)")
        return
    found = _selecting(table.facts, here, "fwd") + _selecting(table.facts, here, "in")
    if walk.answered_now() or any(policy.action != "block" for policy in found):
        return
    counter, what = ("XfrmInNoPols", "no policy of IPsec takes it")
    if found:
        counter, what = ("XfrmInPolBlock", f"the policy {_text(found[0])} blocks it")
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL), f"{what} after it was decrypted", State.UNKNOWN,
        here.packet, cite.of(table.record, *(p.span for p in found)) or cite.whole(table.record),
        reason=f"{what} on {here.node}: the stack drops it ({counter}), unless a program of "
        "Cilium's hands it to the pod",
        decides=Decides.DROP, fix=fix,
    )  # fmt: skip


def _selecting(
    policies: Sequence[XfrmPolicy], here: PacketState, direction: str
) -> list[XfrmPolicy]:
    """Return the policies that select a packet, or what a tunnel carries it in, the first first."""
    flows = [flow for flow in (here.packet.outer, here.packet.flow) if flow is not None]
    found = [
        policy
        for policy in policies
        if policy.direction == direction and any(_selects(policy, flow) for flow in flows)
    ]
    return sorted(found, key=lambda policy: policy.priority)


def _selects(policy: XfrmPolicy, flow: Flow) -> bool:
    return flow.source in policy.source and flow.destination in policy.destination


def _is_sure(policy: XfrmPolicy, state: XfrmState | None) -> bool:
    """Tell whether a policy that selects a packet's addresses certainly takes the packet."""
    if policy.narrowed:
        return False
    if not policy.mark_mask or (policy.mark, policy.mark_mask) == _OF_CILIUM:
        return True
    return state is not None and (state.mark, state.mark_mask) == (policy.mark, policy.mark_mask)


def _text(policy: XfrmPolicy) -> str:
    return f"{policy.source} → {policy.destination} ({policy.direction})"


def _sent_as_it_is(walk: PathBuilder, here: PacketState, node: NodeView, fix: Fix) -> None:
    what = f"no policy of IPsec on {here.node} takes it: it leaves unencrypted"
    evidence = cite.whole(node[q.XFRM_POLICIES].record)
    walk.hop(*here.in_cilium(HopKind.TUNNEL), what, State.DERIVED, here.packet, evidence)
    walk.doubt(f"{what}, and whether the other node takes it is not known", Decides.WAY, fix)
    walk.finding(
        Severity.ERROR,
        what,
        f"Cilium's agent sets a policy for each other node: see its log, and `{LIST}` on the node.",
        evidence,
    )


def _drop(
    walk: PathBuilder,
    here: PacketState,
    policy: XfrmPolicy,
    evidence: tuple[Evidence, ...],
    fix: Fix,
) -> None:
    what = f"the policy of IPsec {_text(policy)} blocks it (XfrmOutPolBlock)"
    walk.drop(
        *here.in_cilium(HopKind.TUNNEL), what, State.DERIVED, here.packet, evidence,
        title=f"IPsec of {here.node}: {what}",
        detail="A policy that blocks takes what no other one of less priority does: see "
        f"`{LIST}` on the node, and the agent's log.",
        fix=fix, object=f"IPsec policy {_text(policy)} on {here.node}",
    )  # fmt: skip
