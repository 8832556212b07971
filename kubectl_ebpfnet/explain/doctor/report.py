"""The report of `doctor`: how much each command will show of this cluster.

A live run has reviews of this user's rights (collect/doctor.py); a capture has none, and shows what
its places answered. Nothing is guessed: a right without a review does not count as denied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.doctor.addresses import conflicts
from kubectl_ebpfnet.explain.doctor.context import DoctorContext
from kubectl_ebpfnet.explain.doctor.nodes import (
    check,
    needs_create,
    reaches,
    runs,
    standing_on,
)
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.doctor import (
    CONNECTION,
    SERVER_VERSION,
    WHO,
    Checkup,
    CiliumFound,
    Connection,
    Level,
    NodeCheck,
)
from kubectl_ebpfnet.model.evidence import API, CLIENT, Bundle, Place, PlaceKind, Record, Span
from kubectl_ebpfnet.model.kube import AGENT_LABEL, Pod
from kubectl_ebpfnet.model.rights import RIGHTS, Right, can_i
from kubectl_ebpfnet.model.untrusted import json_value

_ORDER = (Level.FULL, Level.PARTIAL, Level.BLIND)


def examine(bundle: Bundle) -> Checkup:
    """Report on a cluster, or on a capture of one."""
    cluster = ClusterView(bundle)
    connection = _connection(bundle)
    rights = tuple(_rights(bundle))
    records: dict[Place, list[Record]] = {}
    for record in bundle.records:
        records.setdefault(record.place, []).append(record)
    agents = cluster.index.agents
    cilium = _cilium(cluster, agents, records)
    by_name = {node.name: node for node in cluster.kube.nodes}
    standing = standing_on(cluster.kube.pods)
    context = DoctorContext(cluster, connection, rights, cilium, agents, records, standing, by_name)
    live = bool(connection.server)
    names = cluster.node_names if live else _asked(bundle)
    nodes = tuple(check(name, context) for name in names)
    unlisted = () if nodes else reaches(NodeCheck(""), context)
    return Checkup(
        connection,
        rights,
        cilium,
        nodes,
        unlisted,
        _verdict(nodes, unlisted),
        tuple(_missing(bundle, rights, nodes, live)),
        tuple(conflicts(cluster)),
    )


def _verdict(nodes: Iterable[NodeCheck], unlisted: Iterable[Any]) -> Level:
    """Return the worst level of `path`; nodes that are known not to be Ready do not count."""
    levels = [node.reach("path").level for node in nodes if node.ready is not False]
    levels += [reach.level for reach in unlisted if reach.command == "path"]
    return max(levels, key=_ORDER.index, default=Level.FULL)


def _asked(bundle: Bundle) -> tuple[str, ...]:
    """Return the nodes that a capture has records of."""
    kinds = (PlaceKind.AGENT, PlaceKind.NODE)
    names = sorted(place.node for kind in kinds for place in bundle.places(kind))
    return tuple(dict.fromkeys(names))


def _is_agent(pod: Pod) -> bool:
    name, value = AGENT_LABEL
    return pod.label(name) == value


# --- the API server -------------------------------------------------------------------------------


def _connection(bundle: Bundle) -> Connection:
    connection = _object(bundle.record(CLIENT, CONNECTION))
    who = _object(bundle.record(API, WHO))
    groups = who.get("groups")
    return Connection(
        context=js.text(connection, "context"),
        server=js.text(connection, "server"),
        namespace=js.text(connection, "namespace"),
        node_access=js.text(connection, "node_access"),
        kubernetes=js.text(_object(bundle.record(API, SERVER_VERSION)), "gitVersion"),
        user=js.text(who, "username"),
        groups=tuple(map(str, groups)) if isinstance(groups, list) else (),
    )


def _rights(bundle: Bundle) -> Iterator[Right]:
    """Yield every right with its reviews; nothing where no right was reviewed."""
    reviews: dict[tuple[str, ...], Record] = {
        record.argv: record for record in bundle.records if record.argv[:2] == ("auth", "can-i")
    }
    asks_create = needs_create(_connection(bundle).kubernetes)
    for right in RIGHTS if reviews else ():
        record = reviews.get(can_i(right.verb, right.resource, "", right.name))
        allowed = _allowed(record)
        start = can_i(right.verb, right.resource, "", right.name)[:-1]
        within = tuple(
            argv[-1]
            for argv, review in reviews.items()
            if argv[:-2] == start and argv[-2] == "-n" and _allowed(review)
        )
        problem = ""
        if allowed is None:
            problem = record.why_not() if record is not None else "there was no time to ask"
        effect = right.effect
        if right.resource == "pods/exec" and right.verb == "create" and not asks_create:
            effect = "nothing: this API server asks for get alone"
        proof = cite.of(record, Span(1)) if record is not None and record.ok else ()
        yield replace(
            right,
            allowed=allowed,
            namespaces=() if allowed else within,
            problem=problem,
            effect=effect,
            evidence=proof or cite.whole(record),
        )


def _allowed(record: Record | None) -> bool | None:
    return js.flag(_object(record), "allowed")


def _object(record: Record | None) -> dict[str, Any]:
    if record is None or not record.ok:
        return {}
    try:
        value = json_value(record.stdout.read(), "a record")
    except ParseError:
        return {}
    return value if isinstance(value, dict) else {}


def _missing(
    bundle: Bundle, rights: tuple[Right, ...], nodes: tuple[NodeCheck, ...], live: bool
) -> Iterator[str]:
    if not live:
        yield "this user's rights: a capture does not know them"
    unjudged = [right for right in rights if right.allowed is None]
    if unjudged:
        yield f"{len(unjudged)} of {len(rights)} rights: {unjudged[0].problem}"
    for argv in (SERVER_VERSION, ("get", "nodes")):
        record = bundle.record(API, argv)
        if record is not None and not record.ok:
            yield f"{'the nodes' if argv[-1] == 'nodes' else 'the version'}: {record.why_not()}"
    if live and any(node.by == "agent" for node in nodes):
        yield (
            "what pods see themselves: an agent's node is asked by exec in each pod, which needs "
            "`ip` or `cat` in its image; --node-access pod needs neither"
        )
    if any(node.by == "new node pod" for node in nodes):
        yield "node pods were not tried: doctor --node-access pod deploys them, and takes them away"


# --- Cilium ---------------------------------------------------------------------------------------


def _cilium(
    cluster: ClusterView, agents: Mapping[str, Pod], records: Mapping[Place, Iterable[Record]]
) -> CiliumFound:
    pods = [pod for pod in cluster.kube.pods if _is_agent(pod)]
    answering = [
        place.node
        for place, its_records in records.items()
        if place.kind is PlaceKind.AGENT and any(record.ran for record in its_records)
    ]
    listed = [r for r in cluster.bundle.records if r.place == API and r.argv[:2] == ("get", "pods")]
    found = True if agents or answering else None
    if found is None and any(record.ok for record in listed):
        found = False
    why = next((r.why_not() for r in listed if not r.ok), "") if found is None else ""
    if not found:
        return CiliumFound(found, problem=why)
    first = next(iter(agents.values()), None)
    configs = {name: cluster.node(name).config for name in answering} or {"": cluster.settings}
    problem = "" if any(c != DatapathConfig() for c in configs.values()) else _why_unset(cluster)
    return CiliumFound(
        True,
        first.namespace if first else "",
        first.owner_name if first and first.owner_kind == "DaemonSet" else "",
        max(len(pods), len(answering)),
        max(sum(runs(pod) for pod in agents.values()), len(answering)),
        tuple(_features(cluster, configs)),
        next(iter(configs.values())),
        problem,
    )


def _why_unset(cluster: ClusterView) -> str:
    for record in cluster.bundle.records:
        if "cilium-config" in record.argv and record.argv[0] == "get" and not record.ok:
            return record.why_not()
    return "nothing says how it is set up"


_MOST_VALUES = 4
"""Values of one feature that are still shown one by one."""
_Setting = Callable[[DatapathConfig], str]
_FEATURES: tuple[tuple[str, _Setting], ...] = (
    ("routing", lambda c: _with(c.routing_mode, c.tunnel_protocol, c.routing_mode == "tunnel")),
    (
        "native CIDRs",
        lambda c: "" if c.routing_mode == "tunnel" else ", ".join(map(str, c.native_cidrs)),
    ),
    ("kube-proxy replacement", lambda c: _yes(c.kube_proxy_replacement)),
    (
        "socket load-balancing",
        lambda c: _with(_yes(c.socket_lb), "host only", bool(c.socket_lb_host_only)),
    ),
    ("NodePort mode", lambda c: c.node_port_mode),
    ("masquerading", lambda c: c.masquerade),
    ("host routing", lambda c: c.host_routing),
    ("datapath mode", lambda c: c.datapath_mode),
    ("attached by", lambda c: c.attach_mode),
    ("encryption", lambda c: c.encryption),
    ("host firewall", lambda c: _yes(c.host_firewall)),
    ("egress gateway", lambda c: _yes(c.egress_gateway)),
    ("endpoint routes", lambda c: _yes(c.endpoint_routes)),
)


def _features(
    cluster: ClusterView, configs: dict[str, DatapathConfig]
) -> Iterator[tuple[str, str]]:
    versions = {
        name: next(iter(cluster.node(name)[q.VERSION].facts), "") or config.version
        for name, config in configs.items()
    }
    yield from _feature("version", versions)
    for name, setting in _FEATURES:
        yield from _feature(name, {node: setting(config) for node, config in configs.items()})
    for _, name, data in cluster.kube.config_maps:
        if name == "cilium-config":
            settings = dict(data)
            families = ("ipv4", "ipv6")
            on = [f"IP{f[2:]}" for f in families if settings.get(f"enable-{f}") == "true"]
            yield from _feature("IP versions", {"": ", ".join(on)})
            yield from _feature("policy enforcement", {"": settings.get("enable-policy", "")})
            return


def _feature(what: str, by_node: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield a feature's value where all nodes agree, else its values with their nodes."""
    values: dict[str, list[str]] = {}
    for node, value in by_node.items():
        if value:
            values.setdefault(value, []).append(node)
    if len(values) == 1:
        yield what, next(iter(values))
    elif len(values) > _MOST_VALUES:
        yield what, f"{len(values)} different values, {next(iter(values))} among them"
    elif values:
        yield what, ", ".join(f"{value} ({_some(nodes)})" for value, nodes in values.items())


def _some(nodes: list[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes, {nodes[0]} among them"


def _with(word: str, more: str, when: bool) -> str:
    return f"{word} ({more})" if word and more and when else word


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
