"""Which L7 proxy a policy redirects to, what its rules let pass, and whether it got an answer.

The agent's list of endpoints has the rules as it computed them; without the agent the policies in
the cluster have them (pkg/policy/api, L7Rules).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.explain.path.redirect import Redirect
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.model.path import NOW, Evidence, Fix, Outcome
from kubectl_ebpfnet.model.proxy import EndpointRule, ProxyRedirect

DNS, ENVOY, ANY = "the DNS proxy of Cilium's agent", "the L7 proxy Envoy", "the L7 proxy"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """A proxy and its rules for a redirection.

    Attributes:
        title: the proxy in words.
        parser: `dns`, `http`, …; "" where it is not known.
        passes: what its rules let pass in words, "" where that is not known.
        names: of DNS rules: names and patterns.
        source: the policies that have the rules.
        evidence: the proof.
    """

    title: str
    parser: str = ""
    passes: str = ""
    names: tuple[str, ...] = ()
    source: str = ""
    evidence: tuple[Evidence, ...] = ()


def of(node: NodeView, redirect: Redirect) -> ProxyRules:
    """Return the proxy of a redirection at a node, and its rules."""
    rules = [
        rule
        for rule in node.having(q.ENDPOINT_RULES, redirect.endpoint_id, "endpoint_id")
        if rule.parser and rule.realized and _is_for(rule, redirect)
    ] or list(redirect.rules)
    parser = next((rule.parser for rule in rules), "")
    parser = parser or _parser_of(node, redirect)
    title = {"": ANY, "dns": DNS}.get(parser, ENVOY)
    allows = tuple(dict.fromkeys(word for rule in rules for word in rule.allows))
    policies = dict.fromkeys(policy for rule in rules for policy in rule.policies)
    proof = cite.of(node[q.ENDPOINT_RULES].record, *(rule.span for rule in rules[:2]))
    return ProxyRules(
        title, parser, in_words(parser, allows), allows if parser == "dns" else (),
        ", ".join(policies), proof,
    )  # fmt: skip


def in_words(parser: str, allows: tuple[str, ...]) -> str:
    """Return what L7 rules let pass: `queries for a.example, b.example and 3 more`."""
    if not allows:
        return ""
    what = {"dns": "queries for ", "http": ""}.get(parser, "")
    return f"{what}{few(allows, _SHOWN)}"


def _is_for(rule: EndpointRule, redirect: Redirect) -> bool:
    flow = redirect.flow
    return (
        rule.direction == redirect.direction
        and rule.protocol in ("ANY", protocol_name(flow.protocol))
        and rule.port in (0, flow.destination_port)
    )


def _parser_of(node: NodeView, redirect: Redirect) -> str:
    """Return what the proxy at the redirection's port parses, by its name; "" where nothing tells.

    Names are `cilium-dns-egress`, `cilium-http-ingress`, … (pkg/proxy/types).
    """
    name = next((each.proxy for each in _listed(node, redirect)), "") or _by_rule(node, redirect)
    words = name.split("-")
    return words[1] if len(words) > 2 and words[0] == "cilium" else ""


def _listed(node: NodeView, redirect: Redirect) -> list[ProxyRedirect]:
    return [each for each in node[q.PROXY_REDIRECTS].facts if each.port == redirect.port]


def _by_rule(node: NodeView, redirect: Redirect) -> str:
    """Return the proxy's name of the comment of its TPROXY rule: `cilium: TPROXY to host cilium-…
    proxy`."""
    for ruleset in node.ruleset(redirect.flow.source.version).facts:
        for rule in ruleset.chain("mangle", "CILIUM_PRE_mangle"):
            if rule.jump == "TPROXY" and rule.option("--on-port") == str(redirect.port):
                return next((w for w in rule.comment.split() if w.startswith("cilium-")), "")
    return ""


def evidence(node: NodeView, redirect: Redirect) -> tuple[Evidence, ...]:
    """Cite the agent's redirections to the proxy's port."""
    spans = [each.span for each in _listed(node, redirect)]
    return cite.of(node[q.PROXY_REDIRECTS].record, *spans[:3])


def remedy(node: NodeView, redirect: Redirect) -> tuple[Fix, str]:
    """Return what to do where the proxy does not listen, and the object."""
    if redirect.title == DNS:
        return Fix(
            f"Restart the agent on {node.name}: its DNS proxy listens again, and the policy is "
            "written anew."
        ), ""
    return Fix(
        f"See that Envoy runs on {node.name}: as a DaemonSet of its own, or in the agent's pod "
        "(external-envoy-proxy).",
        "kubectl get pods -A -l k8s-app=cilium-envoy -o wide",
    ), "DaemonSet cilium-envoy"


def upstream(node: NodeView, redirect: Redirect) -> bool:
    """Tell whether a table shows that the destination answered the proxy within the last minute:
    a connection with the client's address that no policy redirects."""
    flow = redirect.flow
    ends = frozenset({(flow.destination, flow.destination_port)})
    for each in tracked_flows(node, FlowQuery(flow.protocol, flow.source, ends), "IN"):
        entry, sent = each.cilium_ct, each.last_seen.sent
        if entry is None or "ProxyRedirect" in entry.flags:
            continue
        if each.outcome is Outcome.ANSWERED and sent is not None and sent <= NOW:
            return True
    return False
