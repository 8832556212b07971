"""What an agent cannot show of its node, by the programs of its image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_ebpfnet.errors import print_rbac
from kubectl_ebpfnet.explain.doctor.context import NODE_POD, DoctorContext
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import NF_CONNTRACK
from kubectl_ebpfnet.model.doctor import Lack, NodeCheck
from kubectl_ebpfnet.model.evidence import agent_place

DEEP = ("path", "capture")
"""Commands that show everything that is known of a node."""
NO_SHELL = "image has no shell and no"  # collect/ask/container.py
_SHOWS_TCX = (7, 3)
"""The first version of bpftool whose `net show` has tcx and netkit programs (its net.c)."""
_SINCE = "7.3"


def by_tools(command: str, found: NodeCheck, context: DoctorContext) -> Iterator[Lack]:
    """Yield what an agent cannot show because its image lacks programs, or did not answer.

    Args:
        command: of COMMANDS.
        found: the node, which its agent answers for.
        context: what is known of the cluster.
    """
    denied = context.lacking_to_deploy
    help_ = NODE_POD if not denied else f"{NODE_POD}, with {print_rbac('deploy')}"
    if not context.live:
        help_ = f"a new capture with {NODE_POD}"
    no = frozenset(found.missing_tools)
    no_cilium, no_tables = {"cilium-dbg", "cilium"} <= no, {NF_CONNTRACK, "conntrack"} <= no
    no_programs = {"bpftool", "tc"} <= no
    if (command == "flows" and no_cilium and no_tables) or (command == "programs" and no_programs):
        what = f"all of {command}: the agent's image has no tool for it"
        yield Lack(what, help_, blinds=True)
        return
    if command != "flows" and "ip" in no:
        yield Lack("devices and rules in full: the agent's image has no ip", help_)
    if command in DEEP and "iptables-save" in no:
        yield Lack("netfilter's rules: the agent's image has no iptables-save", help_)
    if command != "flows" and no_programs:
        yield Lack("BPF programs: the agent's image has neither bpftool nor tc", help_)
    elif command != "flows" and "bpftool" in no:
        yield Lack("programs other than tc's filters: the agent's image has no bpftool", help_)
    elif command != "flows" and (old := _hides_tcx(context.cluster.node(found.name))):
        yield Lack(f"programs at tcx and netkit, and where pinned ones are attached: {old}", help_)
    if command != "programs" and no_cilium:
        yield Lack("Cilium's maps: the agent's image has no cilium-dbg", help_)
    if command != "programs" and no_tables:
        what = f"the kernel's own connection tracking: no {NF_CONNTRACK} and no conntrack"
        yield Lack(what, help_)
    yield from _not_answered(command, found, context, no_cilium=no_cilium)
    if command == "programs":
        yield Lack("programs in pods' own namespaces and cgroups", help_)


def _hides_tcx(node: NodeView) -> str:
    """Return why an agent's bpftool shows no tcx and no netkit programs, "" where it may.

    Without its version, as in captures, a pinned link of Cilium's that it does not show tells.
    """
    said = next(iter(node[q.BPFTOOL].facts), "")
    number = re.match(r"v?(\d{1,4})\.(\d{1,4})", said)
    if number is not None:
        old = (int(number[1]), int(number[2])) < _SHOWS_TCX
        return f"its bpftool is {said}, and {_SINCE} shows them" if old else ""
    if not node[q.BPF_LINKS].known or node.net_shows_tcx:
        return ""
    links = [pin for pin in node[q.BPF_PINS].facts if pin.owner in ("device", "endpoint")]
    if any(not any(one.hook for one in node.links_by_pin.get(pin.path, ())) for pin in links):
        return f"its bpftool does not tell of which devices pinned links are, {_SINCE} does"
    return ""


def _not_answered(
    command: str, found: NodeCheck, context: DoctorContext, *, no_cilium: bool
) -> Iterator[Lack]:
    """Yield what an agent left unanswered."""
    bundle, place = context.cluster.bundle, agent_place(found.name)
    tools = q.best_record(bundle, place, q.TOOLS)
    if tools is None:  # an exec that was cut short before
        tools = next((record for record in bundle.at(place) if not record.ran), None)
    if tools is not None and not tools.ran and NO_SHELL not in tools.error:
        yield Lack(f"which programs the agent's image has is not known ({tools.why_not()})")
    if command in DEEP and not no_cilium:
        status = q.best_record(context.cluster.bundle, agent_place(found.name), q.STATUS)
        if status is not None and not status.ok:
            yield Lack(f"what the agent itself knows: it does not answer ({status.why_not()})")
