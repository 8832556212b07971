"""kube-proxy's table of nftables: where it leaves a packet to a Service alone, and why.

Source: Kubernetes pkg/proxy/nftables/proxier.go. The base chains `nat-prerouting` and `nat-output`
lead to `services`, which looks the destination up in the map `service-ips`, and for the node's own
addresses (set `nodeport-ips`) in `service-nodeports`; their elements lead to a chain for each port
of a Service. What has no endpoint stands in `no-endpoint-services` and `no-endpoint-nodeports`
instead, which the filter chains ask.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.kube_proxy_dead_end import DeadEnd
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import TABLE
from kubectl_ebpfnet.explain.kernel.marks import Mark
from kubectl_ebpfnet.explain.kernel.nft_matches import equals
from kubectl_ebpfnet.explain.kernel.nft_values import Value
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.nft import NftRule, NftRuleset, NftSet

_SERVICES = "services"
CHOOSING = ("service-", "cluster-", "local-")
"""Beginnings of the chains that choose an endpoint; `cluster-` is of 1.29."""


def has_kube_proxy(ruleset: NftRuleset, version: int) -> bool:
    """Tell whether kube-proxy has a table for an IP version."""
    return ruleset.chain(_family(version), TABLE, _SERVICES) is not None


def dead_end(ruleset: NftRuleset, context: Context, hook: str) -> DeadEnd:
    """Follow a packet that no rule translates to the place where it is left alone.

    Args:
        ruleset: with kube-proxy's table.
        context: the packet.
        hook: `prerouting` or `output`.
    """
    flow = context.flow
    family = _family(flow.destination.version)
    own = [rule for rule in ruleset.rules if (rule.family, rule.table) == (family, TABLE)]
    if not _is_entered(ruleset, own, family, hook):
        text = f"no chain of nft table {family} {TABLE} at {hook} leads to chain {_SERVICES}"
        return DeadEnd(text, broken=True)
    sets = next((rule.sets for rule in own), {})
    where, looking = _where(sets, flow)
    way = tuple(r for r in own if r.chain == _SERVICES and looking and f"@{looking}" in r.text)
    if isinstance(where, DeadEnd):
        return DeadEnd(where.text, way, where.broken)
    rules = ruleset.chain(family, TABLE, where)
    what = "which has no rule" if rules == () else "none of whose rules translates it"
    what = "which does not exist" if rules is None else what
    return DeadEnd(f"map {looking} leads to chain {where}, {what}", way, not rules)


def _family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _is_entered(ruleset: NftRuleset, own: list[NftRule], family: str, hook: str) -> bool:
    bases = {
        chain.name
        for chain in ruleset.chains
        if (chain.family, chain.table, chain.hook, chain.kind) == (family, TABLE, hook, "nat")
    }
    return any(
        rule.chain in bases and members.text(statement, verb, "target") == _SERVICES
        for rule in own
        for statement in rule.statements
        for verb in ("jump", "goto")
    )


def _where(sets: Mapping[str, NftSet], flow: Flow) -> tuple[str | DeadEnd, str]:
    """Return the chain that a packet's destination leads to, or why it leads to none; and the map
    that tells."""
    end = endpoint_text(flow.destination, flow.destination_port)
    port = (Mark(flow.protocol), Mark(flow.destination_port or 0))
    at_address: Value = (flow.destination, *port)
    chain = _element(sets, "service-ips", at_address)
    if chain:
        return chain, "service-ips"
    if _element(sets, "no-endpoint-services", at_address) is not None:
        return DeadEnd(f"map no-endpoint-services has {end}"), "no-endpoint-services"
    if _element(sets, "no-endpoint-nodeports", port) is not None:
        at = flow.destination_port
        return DeadEnd(f"map no-endpoint-nodeports has port {at}"), "no-endpoint-nodeports"
    chain = _element(sets, "service-nodeports", port)
    addresses = sets.get("nodeport-ips")
    if chain and addresses and not any(equals(flow.destination, e) for e in addresses.elements):
        return (
            DeadEnd(
                f"set nodeport-ips lacks {flow.destination}: kube-proxy takes node ports at its "
                "--nodeport-addresses alone"
            ),
            "nodeport-ips",
        )
    if chain:
        return chain, "service-nodeports"
    return DeadEnd(f"map service-ips has no element for {end}", broken=True), "service-ips"


def _element(sets: Mapping[str, NftSet], name: str, key: Value) -> str | None:
    """Return the chain that an element of a map leads to; "" for another verdict, None without an
    element."""
    named = sets.get(name)
    for element in named.elements if named is not None else ():
        if equals(key, element[0]):
            return members.text(element[1], "goto", "target")
    return None
