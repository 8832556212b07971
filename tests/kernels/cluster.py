"""The cluster that a virtual machine's records are of: what no kernel says is made up here.

Facts of kernels are real. Fakes, by Cilium's formats: Kubernetes' and Cilium's objects, Cilium's
settings, and what its maps would hold (ipcache, endpoints, policy).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.cilium import (
    HOST,
    REMOTE_NODE,
    IpcacheEntry,
    LocalEndpoint,
    PolicyEntry,
)
from kubectl_ebpfnet.model.evidence import (
    API,
    Bundle,
    InMemory,
    Place,
    Record,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.net import UDP
from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.model.request import PathRequest
from tests.kernels.inside.world import CIDRS, NODE_OF, NODES, PODS

_STARTED = "2026-11-30T10:00:00Z"
_IDENTITIES = {"client": 10001, "web": 10002}
_ENDPOINTS = {"client": 1, "web": 2}
Told = dict[str, Any]
"""What a check told: `records` by node and pod."""


def bundle(
    told: Told,
    settings: dict[str, str],
    *,
    key: int = 0,
    tunnel: bool = False,
    announced: Mapping[str, str] = MappingProxyType({}),
    host: bool = False,
) -> Bundle:
    """The records of a check as those of node pods, with the fakes.

    Args:
        told: of the check.
        settings: of the ConfigMap cilium-config.
        key: the encryption key of the ipcache's entries.
        tunnel: the ipcache has the nodes as ends of a tunnel.
        announced: WireGuard keys of CiliumNode objects.
        host: `client` is in the network of its node.
    """
    objects = [*_nodes(), *_pods(host), *_cilium(settings, announced)]
    said = json.dumps({"kind": "List", "items": objects}).encode()
    records = [_record(API, ("get", "everything"), said)]
    for name, asked in told["records"].items():
        place = node_place(name) if name in NODES else pod_place("default", name)
        for argv, code, stdout, error in asked:
            records.append(
                Record(
                    0, place, tuple(argv), code, InMemory(stdout.encode()), error.encode(), _STARTED
                )
            )
    for node in NODES:
        place = node_place(node)
        records.append(_answer(place, "ipcache", *_ipcache(node, key, tunnel)))
        records.append(_answer(place, "endpoints", *_endpoints(told, node)))
        records.append(_answer(place, "policy", *_policy(node)))
    return bundle_of(records, source="virtual machine")


def path(told: Told, settings: dict[str, str], version: int = 4, **more: Any) -> Path:
    """The path from `client` to UDP port 53 of `web`."""
    address = PODS["web"][0 if version == 4 else 1]
    request = PathRequest(
        source="pod/client",
        source_kind="pod",
        source_namespace="default",
        source_name="client",
        destination=address,
        destination_kind="address",
        destination_address=ip_address(address),
        port=53,
        protocol=UDP,
    )
    return explain(request, bundle(told, settings, **more))


def _record(place: Place, argv: Sequence[str], stdout: bytes) -> Record:
    return Record(0, place, tuple(argv), 0, InMemory(stdout), started=_STARTED)


def _answer(place: Place, name: str, *facts: Any) -> Record:
    return _record(place, node_argv(name), b"".join(map(codec.line_of, facts)))


def _ipcache(node: str, key: int, tunnel: bool) -> Iterator[IpcacheEntry]:
    for name, addresses in NODES.items():
        for address in addresses:
            yield IpcacheEntry(ip_network(address), HOST if name == node else REMOTE_NODE)
    for pod, addresses in PODS.items():
        there = NODE_OF[pod]
        end = ip_address(NODES[there][0]) if there != node else None
        for address in addresses:
            of_wireguard = key == 255
            yield IpcacheEntry(
                ip_network(address),
                _IDENTITIES[pod],
                encrypt_key=key if there != node else 0,
                tunnel_endpoint=end if tunnel or of_wireguard else None,
            )


def _endpoints(told: Told, node: str) -> Iterator[LocalEndpoint]:
    for pod, addresses in PODS.items():
        if NODE_OF[pod] != node:
            continue
        links = next(a[2] for a in told["records"][node] if a[0] == ["ebpfnet-node", "links"])
        index = next(
            link["index"]
            for link in map(json.loads, links.splitlines())
            if link["name"] == f"lxc_{pod}"
        )
        for address in addresses:
            yield LocalEndpoint(
                ip_address(address), False, _ENDPOINTS[pod], _IDENTITIES[pod], index
            )


def _policy(node: str) -> Iterator[PolicyEntry]:
    for pod, there in NODE_OF.items():
        for direction in ("ingress", "egress") if there == node else ():
            yield PolicyEntry(_ENDPOINTS[pod], False, direction, 0, 0)


def _cilium(settings: dict[str, str], announced: Mapping[str, str]) -> Iterator[Any]:
    yield {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"}, "data": settings,
    }  # fmt: skip
    for name, key in announced.items():
        yield {
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "spec": {},
            "metadata": {"name": name, "annotations": {"network.cilium.io/wg-pub-key": key}},
        }  # fmt: skip


def _nodes() -> Iterator[Any]:
    for name, addresses in NODES.items():
        internal = [{"type": "InternalIP", "address": address} for address in addresses]
        yield {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": list(CIDRS[name])}, "status": {"addresses": internal},
        }  # fmt: skip


def _pods(host: bool) -> Iterator[Any]:
    for name, own in PODS.items():
        of_node = host and name == "client"
        addresses = NODES[NODE_OF[name]] if of_node else own
        yield {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"nodeName": NODE_OF[name], "hostNetwork": of_node},
            "status": {
                "phase": "Running", "podIP": addresses[0],
                "podIPs": [{"ip": address} for address in addresses],
            },
        }  # fmt: skip
