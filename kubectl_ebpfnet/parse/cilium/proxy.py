"""What the agent tells of its proxies: redirections, L7 rules, names that were looked up.

    status -o json:         {"proxy": {"redirects": [{"name": "461:egress:UDP:53:",
                             "proxy": "cilium-dns-egress", "proxy-port": 42583}, …]}}
    endpoint list -o json:  status.policy.{realized,spec}.l4.{ingress,egress}:
                             [{"derived-from-rules": [[LABEL, …], …], "rule": JSON as text}, …]
    fqdn cache list -o json: [{"endpoint-id": 461, "fqdn": "ok.example.test.", "ips": ["1.1.1.1"],
                             "lookup-time": …, "expiration-time": …, "ttl": 60, "source": "lookup"}]

The text of a rule is {"port": 53, "protocol": "UDP", "l7-rules": [{SELECTOR: L7 rules or null}]};
a selector of toFQDNs is written `MatchName: NAME, MatchPattern: PATTERN`.

Source: Cilium api/v1/models, pkg/policy/l4.go (MarshalJSON), pkg/policy/api/{l7,fqdn}.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.proxy import EndpointRule, FqdnEntry, ProxyRedirect
from kubectl_ebpfnet.model.untrusted import moment
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import json_value

STATUS = "cilium status"
ENDPOINTS = "cilium endpoint list"
FQDN_CACHE = "cilium fqdn cache list"
_FQDN = re.compile(r"MatchName: (.*), MatchPattern: (.*)")
_FROM = "io.cilium.k8s.policy."
"""Labels that name the object of a rule (pkg/k8s/apis/cilium.io/const.go)."""


def redirects(data: bytes) -> tuple[ProxyRedirect, ...]:
    """Return the redirections of `status -o json`. Raises ParseError."""
    found = []
    for number, item in enumerate(js.items(json_value(data, STATUS), "proxy", "redirects")):
        port = js.number(item, "proxy-port")
        if port is not None:
            span = Span(path=("proxy", "redirects", number))
            found.append(
                ProxyRedirect(js.text(item, "name"), js.text(item, "proxy"), port, span=span)
            )
    return tuple(found)


def rules(data: bytes) -> tuple[EndpointRule, ...]:
    """Return rules of `endpoint list -o json`. Raises ParseError."""
    return tuple(
        rule
        for span, item in _json.list_items(data, ENDPOINTS)
        for rule in _of_endpoint(item, span)
    )


def _of_endpoint(item: Any, span: Span) -> Iterator[EndpointRule]:
    number = js.number(item, "id")
    policy = js.dig(item, "status", "policy")
    if number is None:
        return
    realized: set[tuple[str, str]] = set()
    for state in ("realized", "spec"):
        for direction in ("ingress", "egress"):
            path = ("l4", direction)
            for index, each in enumerate(js.items(js.dig(policy, state), *path)):
                text = js.text(each, "rule")
                key = (direction, "".join(sorted(text)))  # the order of selectors is a map's
                if state == "realized":
                    realized.add(key)
                elif key in realized:
                    continue
                where = span.member("status", "policy", state, *path, index)
                found = _rule(number, direction, text, each, where, is_realized=state == "realized")
                if found is not None:
                    yield found


def _rule(
    number: int, direction: str, text: str, item: Any, span: Span, *, is_realized: bool
) -> EndpointRule | None:
    try:
        rule = json_value(text.encode(), ENDPOINTS)
    except ParseError:
        return None
    parser, allows, names = "", [], []
    for each in js.items(rule, "l7-rules"):
        for selector, l7 in each.items() if isinstance(each, dict) else ():
            fqdn = _FQDN.fullmatch(selector)
            if fqdn:
                names.append((fqdn[1] or fqdn[2]).lower())
            if isinstance(l7, dict):
                kind, said = l7_rules(l7)
                parser = parser or kind
                allows += said
    if is_realized and not parser and not names:
        return None
    policies = [_policy(labels) for labels in js.items(item, "derived-from-rules")]
    return EndpointRule(
        number, direction, js.text(rule, "protocol") or "ANY", js.number(rule, "port") or 0, parser,
        tuple(dict.fromkeys(allows)), tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(filter(None, policies))), is_realized, span,
    )  # fmt: skip


def l7_rules(rules: Any) -> tuple[str, list[str]]:
    """Return the kind of L7 rules, and each in words; of a policy, or of an endpoint's rule."""
    if js.items(rules, "dns"):
        said = [js.text(each, "matchName") or js.text(each, "matchPattern")
                for each in js.items(rules, "dns")]  # fmt: skip
        return "dns", [name.lower() for name in said if name]
    if js.items(rules, "http"):
        return "http", [_http(each) for each in js.items(rules, "http")]
    if js.items(rules, "kafka"):
        return "kafka", [_words(each) for each in js.items(rules, "kafka")]
    name = js.text(rules, "l7proto")
    return name, [_words(each) for each in js.items(rules, "l7")] if name else []


def _http(rule: Any) -> str:
    words = [js.text(rule, "method") or "any method", js.text(rule, "path") or "any path"]
    host = js.text(rule, "host")
    words += [f"of host {host}"] if host else []
    words += (
        ["with headers"] if js.items(rule, "headers") or js.items(rule, "headerMatches") else []
    )
    return " ".join(words)


def _words(rule: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in js.pairs(rule)) or "anything"


def _policy(labels: Any) -> str:
    """Return `CiliumNetworkPolicy default/fqdn` of the labels that a rule comes from."""
    said = {}
    for label in labels if isinstance(labels, list) else ():
        name, _, value = str(label).partition("=")
        said[name.rpartition(":")[2]] = value
    kind, name = said.get(f"{_FROM}derived-from", ""), said.get(f"{_FROM}name", "")
    namespace = said.get(f"{_FROM}namespace", "")
    return f"{kind} {namespace}{'/' if namespace else ''}{name}".strip() if name else ""


def fqdn_cache(data: bytes, *_: str) -> tuple[FqdnEntry, ...]:
    """Parse `fqdn cache list -o json`; words behind it select an endpoint. Raises ParseError."""
    found = []
    for span, item in _json.list_items(data, FQDN_CACHE):
        number, name = js.number(item, "endpoint-id"), js.text(item, "fqdn").lower()
        if number is None or not name:
            raise ParseError(FQDN_CACHE, 0, "an entry without endpoint or name")
        found.append(
            FqdnEntry(
                number, name.rstrip(".") + ".", js.addresses(js.texts(item, "ips")),
                js.number(item, "ttl"), _time(item, "lookup-time"), _time(item, "expiration-time"),
                js.text(item, "source"), span=span,
            )
        )  # fmt: skip
    return tuple(found)


def _time(item: Any, name: str) -> datetime | None:
    text = js.text(item, name)
    if not text or text.startswith("0001-"):
        return None
    try:
        return moment(text, FQDN_CACHE)
    except ParseError:
        return None
