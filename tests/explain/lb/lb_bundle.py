"""Small clusters for probe-lb: the API's objects as collect records them, and what nodes said.

Three nodes n1, n2, n3 (192.0.2.11…), a LoadBalancer Service `web-lb` at 198.51.100.7:80.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.model.evidence import API, Bundle, InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import (
    AttemptOutcome,
    HealthCheck,
    How,
    ProbeAttempt,
    ProbeRequest,
    ProbeTarget,
    TargetKind,
)

VIP, NODE_PORT, CHECK = "198.51.100.7", 30080, 31234
VIP6 = "2001:db8::7"
ADDRESSES = {"n1": "192.0.2.11", "n2": "192.0.2.12", "n3": "192.0.2.13"}
ADDRESSES6 = {"n1": "2001:db8:1::11", "n2": "2001:db8:1::12", "n3": "2001:db8:1::13"}
SAMPLES = Path(__file__).parent / "samples"
TARGET = ProbeTarget(TargetKind.INGRESS, ip_address(VIP), 4, 80, TCP, "http", NODE_PORT)
REQUEST = ProbeRequest("default", "web-lb")


def service(policy: str = "Local", **spec: Any) -> dict[str, Any]:
    """The Service. `ingress`, `labels`, `annotations` go where they belong, the rest into spec."""
    ingress = spec.pop("ingress", [{"ip": VIP}])
    labels, notes = spec.pop("labels", {}), spec.pop("annotations", {})
    return {
        "kind": "Service",
        "metadata": {
            "name": "web-lb", "namespace": "default", "labels": labels, "annotations": notes,
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"],
            "externalTrafficPolicy": policy,
            **({"healthCheckNodePort": CHECK} if policy == "Local" else {}),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    }  # fmt: skip


def endpoint(node: str, address: str = "", **conditions: bool) -> dict[str, Any]:
    """An endpoint on a node, ready if nothing else is said."""
    return {
        "addresses": [address or f"10.244.{node[1:]}.5"],
        "conditions": {"ready": True, **conditions},
        "nodeName": node,
        "targetRef": {"kind": "Pod", "name": f"web-{node}"},
    }


def slice_of(*endpoints: dict[str, Any], port: int = 8080, protocol: str = "TCP") -> dict[str, Any]:
    """The Service's EndpointSlice."""
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-lb-x", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web-lb"},
        },
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": protocol}],
    }  # fmt: skip


def node(
    name: str,
    *,
    ready: bool = True,
    labels: dict[str, str] | None = None,
    version: str = "v1.31.2",
    dual: bool = False,
    **spec: Any,
) -> dict[str, Any]:
    """A node with its address and pod prefix; with `dual` those of IPv6 too."""
    addresses = [ADDRESSES[name], *([ADDRESSES6[name]] if dual else [])]
    prefixes = [f"10.244.{name[1:]}.0/24", *([f"fd00:{name[1:]}::/64"] if dual else [])]
    condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
    if not ready:
        condition["message"] = "Kubelet stopped posting node status."
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"podCIDR": prefixes[0], "podCIDRs": prefixes, **spec},
        "status": {
            "addresses": [{"type": "InternalIP", "address": one} for one in addresses],
            "conditions": [condition],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


def pod(on: str, *, ready: bool = True) -> dict[str, Any]:
    """The pod behind `endpoint(on)`."""
    return {
        "kind": "Pod",
        "metadata": {"name": f"web-{on}", "namespace": "default"},
        "spec": {"nodeName": on, "containers": [{"name": "web"}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.{on[1:]}.5",
            "conditions": [{"type": "Ready", "status": str(ready), "reason": "NotYet"}],
        },
    }


def config(**settings: str) -> dict[str, Any]:
    """Cilium's ConfigMap."""
    data = {key.replace("_", "-"): value for key, value in settings.items()}
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": data,
    }


KUBE_PROXY = config(kube_proxy_replacement="false")


def cilium(mode: str = "snat") -> dict[str, Any]:
    """Cilium in place of kube-proxy."""
    return config(kube_proxy_replacement="true", bpf_lb_mode=mode)


def api(resource: str, *objects: dict[str, Any]) -> Record:
    """A list as it is recorded."""
    said = json.dumps({"kind": "List", "items": objects})
    return Record(0, API, ("get", resource), 0, InMemory(said.encode()))


def on(name: str, command: str, stdout: str | bytes) -> Record:
    """What a node printed."""
    data = stdout.encode() if isinstance(stdout, str) else stdout
    return Record(0, node_place(name), tuple(command.split()), 0, InMemory(data))


def rules(name: str, file: str) -> Record:
    """iptables-save of a node, out of a sample of kube-proxy 1.20 for 192.0.2.77:80."""
    data = (SAMPLES / f"kube-proxy-1.20-{file}.rules").read_text()
    return on(name, "iptables-save -c", data.replace("192.0.2.77", VIP))


def by_udp(policy: str = "Local", **spec: Any) -> dict[str, Any]:
    """The Service with its port over UDP."""
    ports = [{"name": "http", "port": 80, "protocol": "UDP", "nodePort": NODE_PORT}]
    return service(policy, ports=ports, **spec)


def cluster(
    web: dict[str, Any],
    *endpoints: dict[str, Any],
    nodes: tuple[dict[str, Any], ...] = (),
    pods: tuple[dict[str, Any], ...] = (),
    settings: dict[str, Any] = KUBE_PROXY,
    policies: tuple[dict[str, Any], ...] = (),
    more: tuple[Record, ...] = (),
) -> Bundle:
    """A cluster with one Service, its endpoints of its protocol; three plain nodes if none are
    given."""
    protocol = web["spec"]["ports"][0].get("protocol", "TCP")
    return bundle_of(
        [
            api("services", web),
            api("endpointslices", slice_of(*endpoints, protocol=protocol)),
            api("nodes", *(nodes or (node("n1"), node("n2"), node("n3")))),
            api("pods", *pods),
            api("configmaps", settings),
            api("networkpolicies", *policies),
            *more,
        ],
        "test",
    )


def attempt(
    name: str,
    outcome: AttemptOutcome = AttemptOutcome.CONNECTED,
    seen: str = "preserved",
    *,
    target: ProbeTarget = TARGET,
    sender: str = "",
    **rest: Any,
) -> ProbeAttempt:
    """One attempt through a node, from the next one; `seen` is an address, `preserved` or ""."""
    sender = sender or ("n2" if name == "n1" else "n1")
    source = ip_address((ADDRESSES if target.version == 4 else ADDRESSES6)[sender])
    made = ProbeAttempt(
        target=target,
        node=name,
        from_node=sender,
        how=How.NEXT_HOP,
        outcome=outcome,
        seconds=0.0021 if outcome is AttemptOutcome.CONNECTED else 5.0,
        source=source,
        source_port=40000,
        destination=target.address or ip_address(ADDRESSES[name]),
        destination_port=target.port,
    )
    if outcome is AttemptOutcome.CONNECTED and seen:
        address = source if seen == "preserved" else ip_address(seen)
        made = replace(made, source_seen=address, source_from="http", http_status=200)
    return replace(made, **rest)


def check(name: str, status: int | None, count: int | None = None, **rest: Any) -> HealthCheck:
    """A health check's answer."""
    return HealthCheck(name, "n1" if name != "n1" else "n2", CHECK, status, count, **rest)


PROOF = (Evidence(1),)
