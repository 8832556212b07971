"""The L7 proxy that a policy redirects to: the DNS proxy of Cilium's agent, or Envoy.

The packet gets a mark with the proxy's port; netfilter's TPROXY, or a program, hands it to the
socket that listens there on loopback, and drops it without one. The proxy then has a connection of
its own to the destination, with the client's address where it can: the DNS proxy asks servers
outside of the cluster, and without its transparent mode all of them, from its node's own address.
What comes back goes to the proxy, which answers its client in the destination's name.

Sources: Cilium bpf/lib/proxy.h, pkg/datapath/iptables (addProxyRules, CILIUM_PRE_mangle),
pkg/fqdn/dnsproxy (proxy.go, ServeDNS); Linux net/netfilter/xt_TPROXY.c (tproxy_tg4: NF_DROP).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import sockets
from kubectl_ebpfnet.explain.path import fqdn
from kubectl_ebpfnet.explain.path.own_source import own_source
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.redirect import Redirect
from kubectl_ebpfnet.explain.path.stages import outer, proxy_rules
from kubectl_ebpfnet.explain.path.stages.hook_tables import tables_of
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import UDP, Address, Flow, endpoint_text, protocol_name
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Packet, Severity, State

_TO_PROXY = 0x0200
"""MARK_MAGIC_TO_PROXY; the proxy's port stands in the upper half, its bytes swapped."""
_CHAIN = "CILIUM_PRE_mangle"
REFUSES = "refuses queries for"
"""What a hop says of a query that the DNS proxy refuses."""


def redirect_at(walk: PathBuilder, node: str, direction: str) -> Redirect | None:
    """Return the redirection of the packet, or of the one whose answer this is, at a node, whose
    proxy it has not come through.

    Args:
        walk: the walk.
        node: its name.
        direction: of the policy, `ingress` or `egress`.
    """
    found = (walk.forth or walk).redirects
    here = (r for r in found if (r.node, r.direction) == (node, direction))
    if walk.forth is not None:
        return next((r for r in here if r.hop and r not in walk.proxied), None)
    return next((r for r in here if not r.hop), None)


def take(
    walk: PathBuilder, here: PacketState, node: NodeView, redirect: Redirect
) -> PacketState | None:
    """Hand the packet to the proxy.

    Args:
        walk: takes hops and findings.
        here: the packet, where its policy redirects it.
        node: its node.
        redirect: the redirection, of which the proxy's name and rules are filled in.

    Returns:
        The packet of the proxy's own connection, None where it is dropped. To a pod of this node it
        is at the pod's device.
    """
    rules = proxy_rules.of(node, redirect)
    redirect.title, redirect.passes, redirect.hop = rules.title, rules.passes, len(walk.hops)
    redirect.unseen = redirect.direction == "ingress" and not proxy_rules.upstream(node, redirect)
    _handed(walk, here, node, redirect)
    if not _listens(walk, here, node, redirect):
        return None
    if _refuses(walk, here, node, redirect, rules):
        return None
    _decides(walk, node, redirect, rules)
    if redirect.direction == "ingress":
        return here.to(here.stage, by_proxy="upstream", skips_netfilter=False)
    flow = here.packet.flow
    source = flow.source
    if rules.parser == "dns" and not _transparent(walk, here):
        source = _nodes_source(walk, node, flow)
    sent = Packet(Flow(flow.protocol, source, None, flow.destination, flow.destination_port))
    walk.hop(
        *here.on_node(HopKind.SOCKET),
        f"{redirect.title} asks {endpoint_text(flow.destination, flow.destination_port)} on a "
        f"connection of its own, from {source}",
        State.DERIVED, sent,
    )  # fmt: skip
    return here.to(
        Stage.HOST, packet=sent, device="", in_device="", by_proxy="upstream", netfilter=None,
        skips_netfilter=False,
    )  # fmt: skip


def answer(walk: PathBuilder, here: PacketState, redirect: Redirect) -> PacketState:
    """Hand the answer to the proxy, which answers its client.

    Args:
        walk: of the answer; takes the hop.
        here: the answer, where the proxy gets it.
        redirect: of the packet.
    """
    walk.proxied.append(redirect)
    packet = Packet(redirect.flow.reversed())
    end = endpoint_text(redirect.flow.destination, redirect.flow.destination_port)
    walk.hop(
        *here.on_node(HopKind.SOCKET),
        f"{redirect.title} takes the answer, and answers its client as {end}",
        State.DERIVED, packet,
    )  # fmt: skip
    return here.to(
        Stage.HOST, packet=packet, device="", in_device="", by_proxy="answer", netfilter=None,
        skips_netfilter=False, next_hop=None, route=None,
    )  # fmt: skip


def _nodes_source(walk: PathBuilder, node: NodeView, flow: Flow) -> Address:
    """Return the address from which the node's own processes send to a flow's destination."""
    first = outer.node_address(walk, node.name, flow.source.version) or flow.source
    return own_source(node, replace(flow, source=first), {flow.destination})


def _transparent(walk: PathBuilder, here: PacketState) -> bool:
    """Tell whether the DNS proxy asks a server with the client's address."""
    inside = walk.cluster.in_cluster(here.packet.flow.destination)
    return inside and bool(walk.cluster.settings.dns_transparent)


def _handed(walk: PathBuilder, here: PacketState, node: NodeView, redirect: Redirect) -> None:
    """Add the hop that hands the packet to the proxy's socket."""
    port = redirect.port
    mark = ((port & 0xFF) << 8 | port >> 8) << 16 | _TO_PROXY
    text = f"redirected to {redirect.title} at port {port} of {node.name} (mark {mark:#x})"
    proof = proxy_rules.evidence(node, redirect)
    rules = tables_of(node, redirect.flow.source.version)
    chains = [r.chain("mangle", _CHAIN) for r in node.ruleset(redirect.flow.source.version).facts]
    found = [rule for chain in chains for rule in chain if _hands(rule, redirect)]
    if found:
        walk.hop(
            *here.on_node(HopKind.RULE), f"{text}, by {found[0].title}", State.DERIVED,
            Packet(here.packet.flow, mark=mark), proof + rules.evidence(tuple(found[:1])),
        )  # fmt: skip
        return
    others = [rule for chain in chains for rule in chain if rule.jump == "TPROXY"]
    walk.hop(
        *here.on_node(HopKind.RULE), text, State.UNKNOWN if others else State.DERIVED, here.packet,
        proof + rules.evidence(tuple(others[:1])),
        reason=f"no TPROXY rule of {_CHAIN} is for port {port}: whether a program hands it to the "
        "proxy (enable-bpf-tproxy) is not known" if others else "",
        decides=Decides.DROP if others else Decides.NOTHING,
    )  # fmt: skip


def _hands(rule: NetfilterRule, redirect: Redirect) -> bool:
    same = rule.protocol in ("", protocol_name(redirect.flow.protocol).lower())
    return rule.jump == "TPROXY" and same and rule.option("--on-port") == str(redirect.port)


def _listens(walk: PathBuilder, here: PacketState, node: NodeView, redirect: Redirect) -> bool:
    """Tell whether a process listens at the proxy's port on loopback; drop the packet if not."""
    flow, port = redirect.flow, redirect.port
    fact = q.UDP_SOCKETS if flow.protocol == UDP else q.TCP_LISTENERS
    table = node[fact]
    own = f"port {port} of node {node.name}"
    if not table.known:
        walk.wanted.append((node.name, fact))
        walk.presumed.add(f"that {redirect.title} listens at {own} (its sockets)", Look.FIRST)
        return True
    takers = sockets.of_local_proxy(table.facts, flow, port).takers
    if takers:
        walk.hop(
            *here.on_node(HopKind.SOCKET),
            f"{redirect.title} listens at {sockets.text(takers[0])}",
            State.DERIVED, here.packet, cite.of(table.record, takers[0].span),
        )  # fmt: skip
        return True
    place = endpoint_text(sockets.loopback(flow), port)
    what = f"nothing listens at {place}/{protocol_name(flow.protocol)}"
    remedy, owner = proxy_rules.remedy(node, redirect)
    walk.drop(
        *here.on_node(HopKind.SOCKET),
        f"{what}: {redirect.title} is not there",
        State.DERIVED, here.packet, cite.whole(table.record),
        title=f"{redirect.title} does not listen on {node.name}, and a policy redirects to it",
        detail=f"The policy of endpoint {redirect.endpoint_id} redirects this to port {port}, and "
        "netfilter's TPROXY drops what has no socket.",
        cause=f"the policy of endpoint {redirect.endpoint_id} redirects it to {redirect.title}, "
        f"and {what} of {node.name}",
        fix=remedy, object=owner,
    )  # fmt: skip
    return False


def _refuses(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    redirect: Redirect,
    rules: proxy_rules.ProxyRules,
) -> bool:
    """Drop a DNS query for names that no rule of the DNS proxy has; tell whether it is one."""
    names = walk.ends.query
    if not names or not rules.names or any(fqdn.fits_any(name, rules.names) for name in names):
        return False
    what = f"{redirect.title} {REFUSES} {' and '.join(names)}"
    by = f" of {rules.source}" if rules.source else ""
    walk.drop(
        *here.on_node(HopKind.SOCKET), what, State.DERIVED, here.packet, rules.evidence,
        title=f"{redirect.title} of {node.name} refuses the name",
        detail=f"The dns rules{by} let {rules.passes} pass alone.",
        cause=f"{what}: the dns rules{by} let {rules.passes} pass alone",
        fix=Fix(f"Name it in the dns rules{by}, if it is meant, and in toFQDNs."),
        object=rules.source,
    )  # fmt: skip
    return True


def _decides(
    walk: PathBuilder, node: NodeView, redirect: Redirect, rules: proxy_rules.ProxyRules
) -> None:
    """Say what the proxy lets pass, or that this is not known."""
    show = node.cilium(f"monitor -t l7 --related-to {redirect.endpoint_id}")
    if not rules.passes:
        walk.doubt(
            f"{redirect.title} of {node.name} (port {redirect.port}) decides about each request, "
            "by rules that are not in the policy map",
            Decides.DROP,
            Fix(f"See in the agent on {node.name} what the proxy refuses.", show),
        )
    passes = f"It lets {rules.passes} pass, and refuses others" if rules.passes else ""
    source = f", by {rules.source}. " if rules.source and passes else ". " if passes else ""
    walk.finding(
        Severity.INFO,
        f"{redirect.title} of {node.name} decides about each request of endpoint "
        f"{redirect.endpoint_id}",
        f"{passes}{source}The path below is that of a request which it lets pass, on a connection "
        f"of its own. `{show}` in the agent on {node.name} shows what it refuses.",
        rules.evidence or proxy_rules.evidence(node, redirect),
    )
