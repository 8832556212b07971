"""Cilium's settings about policies, and which policies were read: what `explain/policy/evaluate.py`
takes besides the ends of a packet.

Sources: Cilium pkg/policy, pkg/option/config.go (defaults).
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.explain.policy.evaluate import Enforcement
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.policy.peers import Surroundings
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.settings import config_data, setting
from kubectl_ebpfnet.model.evidence import API, Record
from kubectl_ebpfnet.model.net import Address

_WIDER = frozenset({"kube-apiserver", "cluster"})
_ELSEWHERE = {
    "static-cnp-path": "policies in the agents' files (static-cnp-path) are not in the API",
    "enable-k8s-cluster-network-policy": "ClusterNetworkPolicies are not followed",
}
"""Settings by which agents have policies besides those that are read here."""


def around(cluster: ClusterView) -> Surroundings:
    """Return what rules depend on besides the ends."""
    groups = cluster.kube.cidr_groups if _listed(cluster, "ciliumcidrgroups") else None

    def behind(namespace: str, name: str) -> frozenset[Address] | None:
        ends = cluster.index.endpoints_of(namespace, name)
        return frozenset(end.address for end in ends) or None

    known = config_data(cluster) is not None
    match_nodes = "nodes" in setting(cluster, "policy-cidr-match-mode")
    local = {"true": True, "false": False}.get(setting(cluster, "policy-default-local-cluster"))
    return Surroundings(
        setting(cluster, "cluster-name") or ("default" if known else ""),
        groups,
        _why_not(cluster, "ciliumcidrgroups"),
        behind,
        match_nodes if known else None,
        local,
        _WIDER if setting(cluster, "policy-entity-selectors") not in ("", "{}") else frozenset(),
    )


def enforcement(cluster: ClusterView, party: Party) -> Enforcement:
    """Return Cilium's settings about policies, and which policies may be missing.

    Args:
        cluster: has the settings and the records of the API server.
        party: the endpoint.
    """
    known = config_data(cluster) is not None
    localhost = setting(cluster, "allow-localhost")
    return Enforcement(
        mode=setting(cluster, "enable-policy").lower() or ("default" if known else ""),
        kubernetes=setting(cluster, "enable-k8s-networkpolicy") != "false",
        allow_localhost=localhost != "policy" if known else None,
        unread=tuple(_unread(cluster, party)),
    )


def unlisted(cluster: ClusterView, party: Party) -> list[str]:
    """Return which lists of policies for an endpoint were refused, or failed, and why."""
    return [why for why in _unread(cluster, party) if " were not read: " in why]


def _unread(cluster: ClusterView, party: Party) -> Iterator[str]:
    for key, why in _ELSEWHERE.items():
        if setting(cluster, key) not in ("", "false"):
            yield why
    kinds = [("ciliumclusterwidenetworkpolicies", "")]
    if not party.has("reserved", "host").matches:
        kinds += [("networkpolicies", party.namespace), ("ciliumnetworkpolicies", party.namespace)]
    for resource, namespace in kinds:
        if not _listed(cluster, resource, namespace):
            where = f" of namespace {namespace}" if namespace else ""
            why = denied(cluster, resource, namespace) or _failed(cluster, resource, namespace)
            what = f"{resource}{where}"
            yield f"{what} were not read{why}" if why else f"the records have no list of {what}"


def _listed(cluster: ClusterView, resource: str, namespace: str = "") -> bool:
    """Tell whether all objects of a kind, in a namespace, are in the bundle, be it none: the API
    server may not have the kind."""
    return lists.read(cluster, resource, namespace) is not None or any(
        map(_not_served, lists.records_of(cluster, resource, namespace))
    )


def _not_served(record: Record) -> bool:
    return record.error.startswith('resource "')


def _why_not(cluster: ClusterView, resource: str) -> str:
    return (denied(cluster, resource) or _failed(cluster, resource)).lstrip(": ") or (
        "the records have no list of them"
    )  # fmt: skip


def denied(cluster: ClusterView, resource: str, namespace: str = "") -> str:
    """Return `: this user may not list pods in namespace shop`, "" where that is not so."""
    for record in cluster.bundle.at(API):
        of_it = not namespace or namespace in record.argv or "-A" in record.argv
        if record.argv[:2] == ("get", resource) and record.denied and of_it:
            return f": this user may not {record.denied}"
    return ""


def _failed(cluster: ClusterView, resource: str, namespace: str = "") -> str:
    for record in lists.records_of(cluster, resource, namespace):
        if not record.ok and record.error:
            return f": {record.error}"
    return ""
