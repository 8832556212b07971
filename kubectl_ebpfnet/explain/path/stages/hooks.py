"""netfilter's hooks on a node: the tables that a packet passes, in the kernel's order.

raw, mangle and nat PREROUTING stand before the routing decision, mangle and filter FORWARD (or
INPUT) behind it, mangle and nat POSTROUTING at the end; a node's own packets pass raw, mangle, nat
and filter OUTPUT instead (Linux include/uapi/linux/netfilter_ipv4.h). Marks go with the packet.
iptables has two back ends, nf_tables and legacy, and a packet passes the rules of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kubectl_ebpfnet.explain.kernel import netfilter, routing
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, way_back
from kubectl_ebpfnet.explain.kernel.netfilter import ChainEnd, ChainOutcome
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, State
from kubectl_ebpfnet.parse.netfilter import LEGACY_WARNING

IDENTITY_MARK, IDENTITY_BITS = 0x0F00, 0x0F00
"""MARK_MAGIC_IDENTITY: what cil_from_container puts on packets for the stack (bpf/lib/common.h)."""

_OF_SERVICE = re.compile(r"([a-z0-9-]+)/([a-z0-9.-]+)(?::|\s|$)")
"""Beginning of kube-proxy's comments: `namespace/service:port has no endpoints`."""
_MOST = 6
"""Rules that one hop cites."""


@dataclass(frozen=True, slots=True)
class BackEnd:
    """The rules of one back end of iptables.

    Attributes:
        ruleset: of one IP version.
        record: that holds it.
        command: that changes it, `iptables`, `ip6tables-legacy`, …
    """

    ruleset: Ruleset
    record: Record | None
    command: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What one table of a back end does with a packet."""

    back_end: BackEnd
    table: str
    outcome: ChainOutcome

    def named(self, end: ChainEnd) -> str:
        """Return what decides an end in words: the rule, or the chain's policy."""
        return end.rule.title if end.rule is not None else f"policy of {self.outcome.chain}"

    def proof(self, end: ChainEnd) -> tuple[Evidence, ...]:
        """Cite the rules that lead to an end, or the chain with its policy."""
        if end.rule is not None:
            return rules_evidence(self.back_end, end.way)
        place = (self.table, self.outcome.chain)
        chains = self.back_end.ruleset.chains
        spans = [each.span for each in chains if (each.table, each.name) == place]
        return cite.of(self.back_end.record, *spans) if spans else cite.whole(self.back_end.record)


@dataclass(frozen=True, slots=True)
class HookTables:
    """What is known of a node's rules for one IP version.

    Attributes:
        back_ends: those that were read.
        missing: why the rules are not known whole, "" when they are.
        record: that failed, or that says that something is missing.
    """

    back_ends: tuple[BackEnd, ...]
    missing: str
    record: Record | None

    def traverse(self, table: str, chain: str, context: Context) -> Iterator[Passage]:
        """Yield what each back end does with a packet, as the one before it leaves it.

        Args:
            table: `raw`, `mangle`, `nat` or `filter`.
            chain: a built-in chain.
            context: the packet.
        """
        for back_end in self.back_ends:
            outcome = netfilter.traverse(back_end.ruleset, table, chain, context)
            yield Passage(back_end, table, outcome)
            if outcome.passed is None:
                return
            context = outcome.passed


def tables_of(node: NodeView, version: int) -> HookTables:
    """Return a node's rules for one IP version, of both back ends.

    iptables-save prints those of one back end, mostly nf_tables; its header says which.
    """
    main = node.ruleset(version)
    legacy, nft = (q.LEGACY, q.NFT) if version == 4 else (q.LEGACY6, q.NFT6)
    command = "iptables" if version == 4 else "ip6tables"
    backend = main.facts[0].backend if main.facts else ""
    answers = [(command, main)]
    if backend != "legacy":
        answers.append((f"{command}-legacy", node[legacy]))
    if backend != "nf_tables" and (backend or not main.facts):
        answers.append((f"{command}-nft", node[nft]))
    found = [BackEnd(rules, each.record, name) for name, each in answers for rules in each.facts]
    missing, record = "", main.record
    if not main.facts and not node[nft].facts:
        missing = f"netfilter's rules could not be read: {main.missing}"
    elif main.facts and not node[legacy].facts and _legacy_too(main.facts[0], main.record):
        missing = (
            f"{command}-save says that {command}-legacy has tables as well, and "
            f"{command}-legacy-save: {node[legacy].missing}"
        )
    return HookTables(tuple(found), missing, record)


def _legacy_too(ruleset: Ruleset, record: Record | None) -> bool:
    warned = record is not None and LEGACY_WARNING.encode() in record.stderr
    return warned or ruleset.legacy_too


def entering(walk: PathBuilder, here: PacketState, node: NodeView) -> Context:
    """Return the first packet of a connection, or the first answer to it, as it comes into the
    node's stack.

    Args:
        walk: the walk.
        here: the packet.
        node: the node.
    """
    nodes = walk.cluster.node_addresses
    first = Context(
        here.packet.flow,
        here.in_device,
        "",
        _mark(here, node),
        # pkg/ipmasq and pkg/datapath/ipset: Cilium keeps the nodes' addresses in this set.
        sets={"cilium_node_set_v4": nodes, "cilium_node_set_v6": nodes} if nodes else {},
        local=node.own_addresses or None,
        bridged=_bridged(node, here.in_device),
        back_device=back_device(node, here.packet.flow) if here.in_device else None,
    )
    return first if walk.forth is None else _answering(walk.forth, here, first)


def _answering(forth: PathBuilder, here: PacketState, context: Context) -> Context:
    """Return an answer with the state and mark of the connection that its packet made here.

    Of TCP, ICMP and SCTP an answer makes no connection: where nf_conntrack does not know it, it is
    INVALID (Linux net/netfilter/nf_conntrack_proto_tcp.c, tcp_new; …_proto_icmp.c).
    """
    context = replace(context, to_client=True, proxied=None if forth.proxied else False)
    sent = forth.connections.get(here.node)
    if sent is None or sent.state == "UNTRACKED":
        state = "NEW" if context.flow.protocol == UDP else "INVALID"
        return replace(context, state=state)
    state = "ESTABLISHED" if sent.state == "NEW" else ""
    return replace(context, state=state, connmark=sent.connmark, translated=sent.translated)


def back_device(node: NodeView, flow: Flow) -> str | None:
    """Return the device of a node's route to a packet's source; "" for no route, None for not
    known."""
    tables = node_tables(node, flow.source.version)
    if isinstance(tables, str):
        return None
    back = routing.decide(tables, way_back(flow.destination, flow.source))
    if back.undecided or len(back.next_hops) > 1:
        return None
    return back.route.device if back.route is not None else ""


def from_endpoint(node: NodeView, device: str) -> bool:
    """Tell whether what comes in by a device comes from a pod that Cilium manages."""
    return device.startswith("lxc") or bool(device and node.endpoint_at(device) is not None)


def _mark(here: PacketState, node: NodeView) -> Mark:
    """Return the mark that Cilium's programs leave on a packet for the stack; 0 without them."""
    if not here.in_device.startswith("cilium_") and not from_endpoint(node, here.in_device):
        return NO_MARK
    if not here.identity:
        return Mark(IDENTITY_MARK, IDENTITY_BITS)
    low, high = here.identity & 0xFFFF, here.identity >> 16 & 0xFF
    return Mark(low << 16 | IDENTITY_MARK | high)


def _bridged(node: NodeView, device: str) -> bool | None:
    if not node[q.LINKS].known:
        return None
    return None if any(link.master == device for link in node[q.LINKS].facts) else False


def passes(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    chain: str,
    tables: Sequence[str],
    *,
    quiet: bool = False,
) -> PacketState | None:
    """Let the packet pass a chain of some tables; return it as it comes out, None if it is lost.

    Args:
        walk: takes the hop.
        here: the packet, with its `netfilter` for this hook.
        node: the node.
        chain: `FORWARD`, …
        tables: in the kernel's order.
        quiet: add no hop where nothing happens.
    """
    context = here.netfilter
    assert context is not None
    rules = tables_of(node, context.flow.destination.version)
    if rules.missing:
        if not quiet:
            _not_read(walk, here, chain, rules)
        if not rules.back_ends:
            return here
    doubts: list[Passage] = []
    last: Passage | None = None
    for table in tables:
        for last in rules.traverse(table, chain, context):
            if last.outcome.is_lost and not bypass(walk, here):
                _drop(walk, here, last)
                return None
            if last.outcome.is_lost is not False:
                doubts.append(last)
            context = last.outcome.passed or context
    if doubts:
        _doubtful(walk, here, doubts[0])
    elif not quiet and last is not None and not rules.missing:
        walk.hop(
            *here.on_node(HopKind.RULE),
            f"netfilter {chain}: accepted by {last.named(last.outcome.end)}",
            State.DERIVED,
            here.packet,
            last.proof(last.outcome.end),
        )
    if walk.forth is None and here.packet.outer is None:
        sure = not bypass(walk, here)
        walk.connections[here.node] = context if sure else replace(context, state="")
    return here.to(here.stage, netfilter=context)


def _not_read(walk: PathBuilder, here: PacketState, chain: str, rules: HookTables) -> None:
    """Add the hop of rules that are not known; an entry of the newest attempt proves that it
    passed, since nf_conntrack keeps what has passed every hook."""
    attempt = walk.attempt
    seen = attempt is not None and attempt.now and attempt.flow.node == here.node
    seen = seen and (walk.forth is None or walk.answered_now())
    if attempt is not None and seen and attempt.flow.netfilter is not None:
        walk.hop(
            *here.on_node(HopKind.RULE), f"netfilter {chain}: passed, nf_conntrack has the flow",
            State.OBSERVED, here.packet, attempt.flow.evidence[-1:],
        )  # fmt: skip
        return
    walk.hop(
        *here.on_node(HopKind.RULE),
        f"netfilter {chain}",
        State.UNKNOWN,
        here.packet,
        cite.whole(rules.record),
        reason=rules.missing,
        decides=Decides.DROP
        if rules.record is not None and rules.record.ok and not rules.back_ends
        else walk.if_unread(Decides.DROP, f"netfilter's rules on node {here.node}"),
        fix=Fix(f"Read the rules on {here.node}.", "iptables-save -c; iptables-legacy-save -c"),
    )


def _drop(walk: PathBuilder, here: PacketState, passage: Passage) -> None:
    """End the walk at the table that drops the packet."""
    outcome, table = passage.outcome, passage.table
    end, chain, command = outcome.end, outcome.chain, passage.back_end.command
    verb = "rejects" if end.target == "REJECT" else "drops"
    named, rule = passage.named(end), end.rule
    counted = ""
    if rule is None:
        fix = Fix(
            f"Accept this packet in {chain} on {here.node}, or change the chain's policy.",
            f"{command} -t {table} -P {chain} ACCEPT",
        )
    else:
        counted = "" if rule.packets is None else f" It counts {rule.packets} packets."
        fix = _mend(here.node, rule, command)
    where = chain if table == "filter" else f"{table} {chain}"
    walk.drop(
        *here.on_node(HopKind.RULE),
        f"netfilter {verb} it in {where}: {named}",
        State.DERIVED,
        here.packet,
        passage.proof(end),
        title=f"netfilter on {here.node} {verb} the packet in {where}",
        detail=f"By {named}.{counted}",
        cause=f"{named} of table {table} on {here.node} {verb} it",
        fix=fix,
        object=f"{command} -t {table} chain {rule.chain if rule else chain}",
    )


def _mend(node: str, rule: NetfilterRule, command: str) -> Fix:
    """Return what to do about a rule that drops the packet; kube-proxy writes its own anew."""
    service = _OF_SERVICE.match(rule.comment) if rule.chain.startswith("KUBE-") else None
    if service is not None:
        return Fix(
            f"kube-proxy keeps this rule: {rule.comment}. Mend the Service, or its endpoints.",
            f"kubectl get endpointslices -n {service[1]} "
            f"-l kubernetes.io/service-name={service[2]}",
        )
    return Fix(
        f"Let this packet pass before the rule on {node}, or delete the rule.",
        f"{command} -t {rule.table} -D {rule.chain} {rule.number}",
    )


def bypass(walk: PathBuilder, here: PacketState) -> str:
    """Return why it is not known that the packet passes netfilter at all, "" where it does.

    Args:
        walk: the walk.
        here: the packet in the node's stack.
    """
    node = walk.cluster.node(here.node)
    device = here.in_device if here.netfilter is None else here.netfilter.in_device or ""
    of_pod = from_endpoint(node, device)
    if walk.forth is not None:
        of_pod = of_pod or node.local_endpoint(here.packet.flow.destination) is not None
    if not of_pod or node.host_routing.bpf is not None:
        return ""
    return f"whether it passes the node's netfilter is not known: {node.host_routing.reason}"


def _doubtful(walk: PathBuilder, here: PacketState, passage: Passage) -> None:
    """Add the hop of a table that may drop the packet."""
    outcome, chain = passage.outcome, passage.outcome.chain
    losing = outcome.losses[0] if outcome.losses else None
    proof: tuple[Evidence, ...] = ()
    if outcome.is_lost:
        summary = f"netfilter {chain}: {passage.named(outcome.end)} drops it, if it comes there"
        reason, proof = bypass(walk, here), passage.proof(outcome.end)
    elif losing is not None:
        what = passage.named(losing)
        summary = f"netfilter {chain}: {what} may drop it"
        if_so = "if so" if losing.context.assumed else "if not"
        reason, proof = f"{outcome.doubt}; {if_so}, {what} drops it", passage.proof(losing)
    else:
        summary = f"netfilter {chain}: what becomes of it is not known"
        reason = outcome.doubt
    walk.hop(
        *here.on_node(HopKind.RULE),
        summary,
        State.UNKNOWN,
        here.packet,
        (rules_evidence(passage.back_end, outcome.open_rules) + proof)
        or cite.whole(passage.back_end.record),
        reason=reason,
        decides=Decides.DROP,
        fix=Fix(
            f"See on {here.node} whether the rules' counters grow while the packet is sent.",
            f"{passage.back_end.command}-save -c",
        ),
    )


def rules_evidence(back_end: BackEnd, rules: Sequence[NetfilterRule]) -> tuple[Evidence, ...]:
    """Cite rules in the record of their back end; () without rules."""
    spans = [rule.span for rule in dict.fromkeys(rules)]
    return cite.of(back_end.record, *spans[:_MOST]) if spans else ()
