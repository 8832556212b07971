"""The BPF programs at a device, in the order in which the kernel runs them.

At ingress: XDP, then tcx, then the clsact filters by preference; at egress: tcx, then clsact
(Linux net/core/dev.c sch_handle_ingress, sch_handle_egress). tc(8) does not show tcx, and a
bpftool before 7.3 shows neither tcx nor netkit, so bpf_links and Cilium's pins are read as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import Attachment
from kubectl_ebpfnet.model.path import Evidence

_ORDER = {"xdp": 0, "netkit": 1, "tcx": 2, "clsact": 3}
_KERNEL_NAME_LENGTH = 15

ROLES = {
    "cil_from_container": "what leaves the pod: LB, conntrack, egress policy, forwarding",
    "cil_to_container": "what enters the pod: ingress policy",
    "cil_lxc_policy": "what enters the pod: ingress policy",
    "cil_from_host": "from the node's stack to pods",
    "cil_to_host": "to the node's stack",
    "cil_from_netdev": "from the network: NodePort, reverse NAT, local delivery",
    "cil_to_netdev": "to the network: masquerading, NodePort replies",
    "cil_from_overlay": "out of the tunnel",
    "cil_to_overlay": "into the tunnel",
    "cil_xdp_entry": "before the stack: prefilter, NodePort",
    "cil_from_wireguard": "decrypted by WireGuard",
    "cil_to_wireguard": "to be encrypted by WireGuard",
    "cil_from_network": "marks IPsec packets",
}
"""Cilium's programs by full name (cilium-facts 4.2); older section names are joined to these."""

SOCKET_ROLES = {
    "_connect": "socket LB: connect()",
    "_sendmsg": "socket LB: datagrams out",
    "_recvmsg": "socket LB: datagrams in",
    "_getpee": "socket LB: peer's name",
    "_post_bi": "socket LB: guards NodePorts",
    "_pre_bi": "socket LB: health checks",
    "_release": "socket LB: forgets a socket",
}
"""Roles of Cilium's programs at cgroup hooks, by a part of their names (bpf/bpf_sock.c); the kernel
cuts names at 15 characters."""


@dataclass(frozen=True, slots=True)
class ProgramAtHook:
    """A program at a hook with the evidence that names it."""

    attachment: Attachment
    evidence: tuple[Evidence, ...]

    @property
    def title(self) -> str:
        """`cil_from_container (tcx/ingress, id 2205, tag …)`."""
        a = self.attachment
        details = [a.hook or "bpf_link"]
        if a.program_id is not None:
            details.append(f"id {a.program_id}")
        if a.tag:
            details.append(f"tag {a.tag}")
        name = a.program_name.removesuffix(":[*fsobj]") or "a program"
        return f"{name} ({', '.join(details)})"

    @property
    def role(self) -> str:
        """The purpose of Cilium's program of this name, "" for programs of others."""
        return role_of(self.attachment.program_name)


@dataclass(frozen=True, slots=True)
class DevicePrograms:
    """The programs of one device and direction.

    Attributes:
        programs: in the order in which they run.
        asked: sources that were read, e.g. ("bpftool net", "tc").
        missing: why the list may be incomplete; "" when every attach type was read.
        evidence: of an empty answer.
    """

    programs: tuple[ProgramAtHook, ...]
    asked: tuple[str, ...]
    missing: str
    evidence: tuple[Evidence, ...] = ()


def role_of(name: str) -> str:
    """Return the role of a program by any of the names that versions and tools give it.

    `cil_from_container`, `cil_from_container-lxc1a2b` (a tc filter), `cil_from_contai` (the
    kernel's 15 characters), `bpf_lxc.o:[from-container]` (a section), `…:[*fsobj]` (a tc filter
    that was loaded from a pin).
    """
    for part, role in SOCKET_ROLES.items():
        if name.startswith(("cil_sock4_", "cil_sock6_", "cil_sock_")) and part in name:
            return role
    whole, _, section = name.partition(":[")
    section = section.rstrip("]")
    bare = section if section and not section.startswith("*") else whole
    for full, role in ROLES.items():
        old = full.removeprefix("cil_").replace("_", "-")
        if bare == old or bare.partition("-")[0] == full:
            return role
        if len(bare) == _KERNEL_NAME_LENGTH and full.startswith(bare):
            return role
    return ""


def at_device(
    node: NodeView, device: str, direction: str, endpoint_id: int | None = None
) -> DevicePrograms:
    """Return the programs that a packet meets at a device of a node.

    Args:
        node: whose device it is.
        device: its name.
        direction: `ingress` (into the stack from the device) or `egress`.
        endpoint_id: of the pod behind the device, to find its pinned links.
    """
    whole = node[q.ATTACHMENTS]
    if whole.known:
        there = _of(node.having(q.ATTACHMENTS, device, "device"), direction, whole.record)
        return DevicePrograms(
            tuple(there), ("the kernel",), stated_gaps(whole.record), cite.whole(whole.record)
        )
    found: list[ProgramAtHook] = []
    asked: list[str] = []
    empty: tuple[Evidence, ...] = ()
    tcx_visible = False
    net = node[q.BPF_NET]
    if net.known:
        asked.append("bpftool net")
        empty += cite.whole(net.record)
        tcx_visible = node.net_shows_tcx
        found += _of(node.having(q.BPF_NET, device, "device"), direction, net.record)
    filters = node[q.TC_FILTERS.about(device, direction)]
    if filters.known:
        asked.append("tc")
        empty += cite.whole(filters.record)
        of_tc = [ProgramAtHook(a, cite.of(filters.record, a.span)) for a in filters.facts]
        found += _new(found, of_tc)
    if not any(p.attachment.hook.startswith(("tcx", "netkit")) for p in found):
        linked, looked = _links(node, device, direction, endpoint_id, tcx_visible)
        found += _new(found, linked)
        asked += looked
    named = tuple(_named(node, program) for program in sorted(found, key=_rank))
    return DevicePrograms(named, tuple(asked), _missing(asked, tcx_visible, named), empty)


def stated_gaps(record: Record | None) -> str:
    """Return the gaps that an answer of the node side reports in its stderr, "" for none."""
    return record.stderr.decode("utf-8", "replace").strip() if record is not None else ""


def _of(
    attachments: Iterable[Attachment], direction: str, record: Record | None
) -> list[ProgramAtHook]:
    hits = []
    for a in attachments:
        hook, _, side = a.hook.partition("/")
        # netkit programs are at the host side device: `peer` sees what leaves the pod.
        side = {"peer": "ingress", "primary": "egress"}.get(side, side)
        if hook == "xdp":
            side = "ingress"
        if side == direction:
            hits.append(ProgramAtHook(a, cite.of(record, a.span)))
    return hits


def _links(
    node: NodeView, device: str, direction: str, endpoint_id: int | None, tcx_visible: bool
) -> tuple[list[ProgramAtHook], list[str]]:
    asked = []
    found: list[ProgramAtHook] = []
    owners = [("device", device.replace(".", "-"))]
    if endpoint_id is not None:
        owners.append(("endpoint", str(endpoint_id)))
    if node[q.BPF_PINS].known:
        asked.append("pins")
        by_owner = (node.having(q.BPF_PINS, owner, "owner", "owner_name") for owner in owners)
        for pin in sorted(chain.from_iterable(by_owner), key=lambda pin: pin.span.line):
            if pin.kind != "link" or _direction_of(pin.name) != direction:
                continue
            link = next(iter(node.links_by_pin.get(pin.path, ())), None)
            hook = link.hook if link and link.hook else f"tcx/{direction}"
            program = Attachment(
                hook=hook,
                device=device,
                program_name=pin.name,
                program_id=link.program_id if link else None,
                link_id=link.link_id if link else None,
                pin=pin.path,
            )
            found.append(ProgramAtHook(program, cite.of(node[q.BPF_PINS].record, pin.span)))
    if found or tcx_visible or not node.bpf_links.known:
        return found, asked
    asked.append("bpftool link")
    # Without pins the device's name is all there is; another namespace may use the same one.
    found = _of(node.links_by_device.get(device, ()), direction, node.bpf_links.record)
    return found[:1], asked


def _direction_of(name: str) -> str:
    """Return `ingress` or `egress`, where Cilium attaches a program of this name."""
    if name == "cil_from_host":
        return "egress"
    if name == "cil_to_host":
        return "ingress"
    return "ingress" if "_from_" in name or name.startswith(("from-", "cil_xdp")) else "egress"


def _new(have: list[ProgramAtHook], more: list[ProgramAtHook]) -> list[ProgramAtHook]:
    ids = {p.attachment.program_id for p in have if p.attachment.program_id is not None}
    return [p for p in more if p.attachment.program_id not in ids or not ids]


def _rank(program: ProgramAtHook) -> tuple[int, int]:
    kind = program.attachment.hook.partition("/")[0]
    return (_ORDER.get(kind, 9), program.attachment.priority)


def _named(node: NodeView, program: ProgramAtHook) -> ProgramAtHook:
    a = program.attachment
    known = node.program(a.program_id)
    if known is None:
        return program
    name = a.program_name
    # A tc filter's name is the program's with the device behind it; the kernel cuts names.
    if known.name and (known.name.startswith(name) or name.startswith(f"{known.name}-")):
        name = known.name
    keep = ("id", "type", "name", "tag", "loaded_at")
    evidence = program.evidence + cite.of(node[q.BPF_PROGRAMS].record, known.span, keep=keep)
    return ProgramAtHook(replace(a, tag=a.tag or known.tag, program_name=name), evidence)


def _missing(asked: list[str], tcx_visible: bool, found: tuple[ProgramAtHook, ...]) -> str:
    if not asked:
        return "neither bpftool nor tc could be asked"
    if found or tcx_visible or "pins" in asked or "bpftool link" in asked:
        return ""
    if asked == ["tc"]:
        return "only tc was asked, which does not show tcx and netkit"
    return ""
