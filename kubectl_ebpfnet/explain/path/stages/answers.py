"""netfilter and the answer to a packet, on a node that let the packet pass.

A rule that surely drops the answer breaks the connection as one that drops the packet does. What
an undecided rule does with it is not looked at: the walk is the packet's.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.explain.path.stages import hooks
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import Decides, Fix, Severity

_ANSWERS = {"FORWARD": "FORWARD", "OUTPUT": "INPUT", "INPUT": "OUTPUT"}
"""The chain that the answer passes, of the chain that the packet passed."""


def check(walk: PathBuilder, here: PacketState, node: NodeView, chain: str) -> None:
    """Report a rule that surely drops the answer.

    Args:
        walk: takes the doubt and the finding.
        here: the packet, with its `netfilter` after the chain.
        node: the node.
        chain: that the packet passed: `FORWARD`, `OUTPUT` or `INPUT`.
    """
    context = here.netfilter
    if context is None or context.state != "NEW":
        return
    answer = _answer(context, node, chain)
    _follow(walk, here, answer, _ANSWERS[chain], ("mangle", "filter"))


def check_coming(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    """Report a rule of PREROUTING that surely drops the answer as it comes in.

    Args:
        walk: takes the doubt and the finding.
        here: the packet at its egress device, after netfilter's source NAT.
        node: the node.
    """
    context, local = here.netfilter, node.local_endpoint(here.packet.flow.destination)
    if context is None or context.state != "NEW":
        return
    if local is None and here.device.startswith("cilium_"):
        return  # it comes back in the tunnel, past the stack
    mark = NO_MARK if local is None else Mark(hooks.IDENTITY_MARK, hooks.IDENTITY_BITS)
    flow = here.packet.flow.reversed()
    answer = replace(
        context, flow=flow, in_device=here.device if local is None else local.interface,
        out_device="", mark=mark, state="ESTABLISHED", marked_by=(), assumed=(),
        back_device=hooks.back_device(node, flow),
    )  # fmt: skip
    _follow(walk, here, answer, "PREROUTING", ("raw", "mangle"))


def _follow(
    walk: PathBuilder, here: PacketState, answer: Context, chain: str, tables: tuple[str, ...]
) -> None:
    """Report the first table that surely drops the answer, once a node."""
    said = f"netfilter on {here.node} drops the answer"
    if any(finding.title.startswith(said) for finding in walk.findings):
        return
    if hooks.bypass(walk, here.to(here.stage, netfilter=answer)):
        return
    rules = hooks.tables_of(walk.cluster.node(here.node), answer.flow.destination.version)
    for table in tables:
        for passage in rules.traverse(table, chain, answer):
            if passage.outcome.is_lost:
                _report(walk, here, passage)
                return


def _answer(context: Context, node: NodeView, chain: str) -> Context:
    """Return the first answer as it passes its chain; netfilter has undone the source NAT."""
    flow = context.flow
    came_by, leaves_by = context.out_device, context.in_device
    mark = NO_MARK
    local = node.local_endpoint(flow.destination)
    if chain == "FORWARD":
        if local is not None:
            came_by, mark = local.interface, Mark(hooks.IDENTITY_MARK, hooks.IDENTITY_BITS)
        if node.local_endpoint(flow.source) is not None:
            leaves_by = hooks.back_device(node, flow)
    elif chain == "OUTPUT":
        leaves_by = ""
    else:
        came_by = ""
    return replace(
        context, flow=flow.reversed(), in_device=came_by, out_device=leaves_by, mark=mark,
        state="ESTABLISHED", back_device=None, marked_by=(), assumed=(),
    )  # fmt: skip


def _report(walk: PathBuilder, here: PacketState, passage: hooks.Passage) -> None:
    end, command = passage.outcome.end, passage.back_end.command
    named, where = passage.named(end), passage.outcome.chain
    if passage.table != "filter":
        where = f"{passage.table} {where}"
    text = f"netfilter on {here.node} drops the answer in {where}: {named}"
    fix = Fix(f"Let answers pass before it on {here.node}.", f"{command}-save -c")
    if end.rule is not None:
        fix = Fix(
            f"Let answers pass before the rule on {here.node}, or delete it.",
            f"{command} -t {passage.table} -D {end.rule.chain} {end.rule.number}",
        )
    walk.doubt(text, Decides.DROP, fix)
    if walk.answered_now():
        walk.contradicts(text, passage.proof(end))
    counted = end.rule.packets if end.rule is not None else None
    counts = f" It counts {counted} packets." if counted is not None else ""
    walk.finding(
        Severity.ERROR,
        f"netfilter on {here.node} drops the answer in {where}",
        f"By {named}.{counts} The packet itself passes, and nothing comes back.",
        passage.proof(end),
    )
