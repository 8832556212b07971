"""Find the names in a bundle, and make a substitute for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, Record
from kubectl_ebpfnet.model.untrusted import json_value

_COMMON = """
    default kube-system kube-public kube-node-lease cilium cilium-system cilium-agent cilium-config
    kubernetes kube-dns coredns kube-proxy kube-apiserver cilium-operator cilium-envoy
    hubble hubble-relay hubble-ui cluster local svc svc.cluster.local cluster.local linux windows
    amd64 arm64 true false yes no none null unknown any all ok error warning info ready running
    pending failed succeeded active terminating disabled enabled node nodes pod pods service
    services endpoint endpoints namespace host world health init unmanaged remote-node reserved
    ingress egress tcp udp icmp icmpv6 sctp ip ipv4 ipv6 route routes rule rules link links dev
    device via src dst proto kernel boot static scope global metric table main lo eth0 veth bridge
    vxlan geneve tunnel native snat dsr hybrid tc tcx xdp bpf map prog get list show dump cat
    resolve exec filter address addresses name names kind metadata spec status items type state
    flags labels id identity key value port ports protocol external internal public private
    http https dns policy allow deny drop forward input output accept return masquerade mark
    prerouting postrouting nat raw mangle in out up down
"""
# Words of the API, which labels may have too: those of Cilium's endpoints name kinds of policies.
_OF_API = """
    Pod Node Service EndpointSlice Namespace ConfigMap ServiceCIDR List CiliumEndpoint CiliumNode
    CiliumIdentity CiliumNetworkPolicy CiliumClusterwideNetworkPolicy CiliumCIDRGroup NetworkPolicy
    CiliumLocalRedirectPolicy CiliumEgressGatewayPolicy CiliumBGPAdvertisement PodCIDR
    CiliumPodIPPool Interface LoadBalancerIP Ingress Egress Valid True False Unknown
    Ready
    In NotIn Exists DoesNotExist TCP UDP SCTP ICMP ICMPv6 ANY IPv4 IPv6 EchoRequest EchoReply
    InternalIP ExternalIP Hostname ClusterIP NodePort LoadBalancer ExternalName Cluster Local
    encrypted-overlay world-ipv4 world-ipv6 k8s cidr cidrgroup fqdn
"""
_ARGV_WORDS = (word for fact in q.FACTS for argv in fact.answers for word in argv)
COMMON = frozenset((*_COMMON.split(), *_OF_API.split(), *_ARGV_WORDS))
"""Words of every cluster, and words that the tools print or take as arguments: no secrets."""

_KINDS = {
    "Node": "node",
    "CiliumNode": "node",
    "Namespace": "namespace",
    "Pod": "pod",
    "CiliumEndpoint": "pod",
    "Service": "service",
}
_RANKED = "node namespace pod service replicaset object cluster domain label"
_RANK = {kind: rank for rank, kind in enumerate(_RANKED.split())}
_COMMON_ENDS = (".k8s.io", "cluster.local")
_LABEL_TEXT = re.compile(r"\bk8s:[\w./-]+=([\w.-]+)")
_AGENT_KEYS = {
    "k8s-pod-name": "pod",
    "K8sPodName": "pod",
    "k8s-namespace": "namespace",
    "K8sNamespace": "namespace",
    "nodeName": "node",
    "matchName": "domain",
    "matchPattern": "domain",
    "cluster-name": "cluster",
}


def names_of(bundle: Bundle) -> dict[str, str]:
    """Return the substitute of every name in a bundle: `pod-1`, `node-2`, … in order."""
    found: dict[str, str] = {}
    for record in bundle.records:
        for name, kind in _names(record):
            if not name or name in COMMON or name.isdecimal() or name.endswith(_COMMON_ENDS):
                continue
            if kind == "label" and len(name) < 3:
                continue  # too short to find in text, and no secret
            if name not in found or _RANK[kind] < _RANK[found[name]]:
                found[name] = kind
    counts: dict[str, int] = {}
    substitutes: dict[str, str] = {}
    for name, kind in sorted(found.items(), key=lambda item: item[1] == "replicaset"):
        stem = kind
        if kind == "replicaset":  # `<deployment>-<hash>`: keep the substitute of the deployment
            owner = name.rpartition("-")[0]
            stem = f"{substitutes.get(owner, owner)}-rs"
        while True:
            counts[stem] = counts.get(stem, 0) + 1
            word = f"{stem}{'' if kind == 'replicaset' else '-'}{counts[stem]}"
            if word not in found:
                break
        substitutes[name] = f"{word}.invalid" if kind == "domain" else word
    return substitutes


def _names(record: Record) -> Iterator[tuple[str, str]]:
    place = record.place
    yield place.node, "node"
    yield place.namespace, "namespace"
    yield place.pod, "pod"
    if record.argv[:1] in (("getent",), ("resolve",), ("nslookup",)):
        yield record.argv[-1].rstrip("."), "domain"
    if record.argv == ("cat", "/etc/hosts"):
        yield from _host_names(record)
        return
    if record.argv == ("cat", "/etc/resolv.conf"):
        yield from _search_domains(record)
        return
    if place.kind is PlaceKind.POD or place.kind is PlaceKind.NODE or _is_long(record):
        return
    text = record.stdout.read().decode("utf-8", "replace")
    for match in _LABEL_TEXT.finditer(text):
        yield match[1], "label"
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json_value(text.encode(), "a record")
        except ParseError:
            return
        if place.kind is PlaceKind.API:
            yield from _names_of_objects(value)
        else:
            yield from _names_of_agent(value, record.argv)


def _is_long(record: Record) -> bool:
    """Tell whether a record is a table of flows: it has no names, and may be too long to read."""
    return any(fact.is_answered_by(record.argv) for fact in q.FACTS if fact.by_flow)


def _search_domains(record: Record) -> Iterator[tuple[str, str]]:
    for line in record.stdout.read().decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] in (["search"], ["domain"]):
            for word in words[1:]:
                yield word.rstrip("."), "domain"


def _host_names(record: Record) -> Iterator[tuple[str, str]]:
    for line in record.stdout.read().decode("utf-8", "replace").splitlines():
        for word in line.partition("#")[0].split()[1:]:
            if "localhost" not in word and not word.startswith("ip6-"):
                yield word, "domain"


def _names_of_objects(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    items = value.get("items")
    for item in items if isinstance(items, list) else [value]:
        if not isinstance(item, dict):
            continue
        metadata = item.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        kind = str(item.get("kind", ""))
        yield _text(metadata.get("namespace")), "namespace"
        yield _text(metadata.get("name")), _KINDS.get(kind, "object")
        for owner in json_members.items(metadata, "ownerReferences"):
            name = json_members.text(owner, "name")
            if json_members.text(owner, "kind") == "ReplicaSet" and "-" in name:
                yield name.rpartition("-")[0], "object"
                yield name, "replicaset"
            else:
                yield name, "object"
        for _, label in json_members.pairs(metadata, "labels"):
            yield label, "label"
        for address in json_members.items(item, "status", "addresses") if kind == "Node" else []:
            if json_members.text(address, "type") not in ("InternalIP", "ExternalIP"):
                yield json_members.text(address, "address"), "node"
        for domain in json_members.texts(item, "spec", "dnsConfig", "searches"):
            yield domain.rstrip("."), "domain"
        for alias in json_members.items(item, "spec", "hostAliases"):
            for name in json_members.texts(alias, "hostnames"):
                yield name, "domain"
        yield from _selectors(item.get("spec"))
        yield from _names_by_key(item)


def _selectors(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the values of label selectors in a policy or a Service, and the objects that rules
    name."""
    for item in _objects(value):
        for key in ("matchLabels", "selector"):
            labels = item.get(key)
            if isinstance(labels, dict):
                for label in labels.values():
                    yield _text(label), "label"
        for requirement in json_members.items(item, "matchExpressions"):
            for label in json_members.texts(requirement, "values"):
                yield label, "label"
        yield json_members.text(item, "cidrGroupRef"), "object"
        yield json_members.text(item, "k8sService", "serviceName"), "service"
        for key in ("k8sService", "k8sServiceSelector"):
            yield json_members.text(item, key, "namespace"), "namespace"


def _names_of_agent(value: Any, argv: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield from _names_by_key(value)
    for item in _objects(value):
        flags = item.get("flags")
        if isinstance(flags, dict):  # of `service list`
            yield _text(flags.get("name")), "service"
            yield _text(flags.get("namespace")), "namespace"
        name = _text(item.get("name"))
        if argv[1:3] == ("node", "list") and name:
            cluster, _, node = name.rpartition("/")
            yield cluster, "cluster"
            yield node, "node"


def _names_by_key(value: Any) -> Iterator[tuple[str, str]]:
    for item in _objects(value):
        for key, kind in _AGENT_KEYS.items():
            yield _text(item.get(key)), kind
        labels = item.get("security-labels")
        if isinstance(labels, dict):
            for label in labels.values():
                yield _text(label), "label"


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    queue = [value]
    while queue:
        item = queue.pop()
        if isinstance(item, dict):
            yield item
            queue.extend(item.values())
        elif isinstance(item, list):
            queue.extend(item)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
