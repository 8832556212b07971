"""Whether Cilium's program at a device can call its further parts.

A node pod reads the maps. An agent is not asked for them: where the parts of an endpoint's program
are loaded, they share a map with it that no other endpoint's program has; the kernel unloads them
with their map's last reference. So a program without such a part, while another endpoint's has
some, has an empty map. (Names and sharing as in Cilium 1.10 to 1.20: 1.9 has no names.)
"""

from __future__ import annotations

from collections import Counter

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Program
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence

_FROM_POD = ("cil_from_container", "handle_xgress")
_POLICY = ("cil_lxc_policy", "handle_policy")
_OVERLAY = ("cilium_vxlan", "cilium_geneve")


@dataclass(frozen=True, slots=True)
class MissedCall:
    """A map that lacks the program that is called next: its name, and what shows it."""

    map: str
    evidence: tuple[Evidence, ...]


def missed_call(node: NodeView, device: str, endpoint_id: int | None = None) -> MissedCall | None:
    """Return the empty map of a device's program; None where it is not, or where nothing tells.

    Args:
        node: whose device it is.
        device: its name.
        endpoint_id: of the pod behind it, None for none.
    """
    name = _calls_of(node, device, endpoint_id)
    answer = node[q.TAIL_CALLS]
    if answer.known:
        rows = [row for row in answer.facts if name and row.map.startswith(name)]
        if not rows or any(row.filled for row in rows):
            return None
        return MissedCall(rows[0].map, cite.of(answer.record, *(row.span for row in rows)))
    if endpoint_id is None:
        return None
    return _by_programs(node, device, name, ("tail_",))


def missed_policy(node: NodeView, device: str, endpoint_id: int) -> MissedCall | None:
    """Return the map of policies where it lacks an endpoint's ingress program, else None.

    Args:
        node: of the endpoint.
        device: the host side of its pod.
        endpoint_id: its id.
    """
    answer = node[q.TAIL_CALLS]
    if not answer.known:
        return _by_programs(node, device, "cilium_call_policy", _POLICY)
    for row in node.having(q.TAIL_CALLS, endpoint_id, "endpoint_id"):
        return None if row.filled else MissedCall(row.map, cite.of(answer.record, row.span))
    return None


def _calls_of(node: NodeView, device: str, endpoint_id: int | None) -> str:
    """Return the beginning of the name of a device's map, "" where it is not known."""
    link = node.link(device)
    if endpoint_id is not None:
        return f"cilium_calls_{endpoint_id:05d}"
    if device in _OVERLAY:
        return "cilium_calls_overlay_"
    if device == "cilium_host":
        return "cilium_calls_hostns_"
    return f"cilium_calls_netdev_{link.index:05d}" if link is not None else ""


def _by_programs(
    node: NodeView, device: str, name: str, parts: tuple[str, ...]
) -> MissedCall | None:
    loaded = node[q.BPF_PROGRAMS].facts
    entries = [one for one in loaded if one.name in _FROM_POD]
    attached = {a.program_id for a in (*node[q.BPF_NET].facts, *node.bpf_links.facts)
                if a.device == device}  # fmt: skip
    own = next((one for one in entries if one.id in attached), None)
    if own is None:
        return None
    called = {number for one in loaded if one.name.startswith(parts) for number in one.map_ids}
    users = Counter(number for one in entries for number in set(one.map_ids))

    def calls(one: Program) -> bool:
        """Tell whether a map that no other endpoint's program has leads to one of the parts."""
        return any(users[number] == 1 for number in called.intersection(one.map_ids))

    if calls(own) or not any(calls(one) for one in entries):
        return None  # it has a part, or this Cilium's programs do not show it
    return MissedCall(name, cite.of(node[q.BPF_PROGRAMS].record, own.span))
