"""What runs in the lab: the replay agents, the workloads, the users' rights."""

from __future__ import annotations

import json
from typing import Any

from kubectl_ebpfnet.model.tiers import PLACE, ROLES, Tier
from kubectl_ebpfnet.render.doctor.rbac import manifest
from tests.lab.cluster.config import (
    HERE,
    LB_CLUSTER_ADDRESS,
    LB_LOCAL_ADDRESS,
    NODES,
    STATE,
    UDP_CLUSTER_ADDRESS,
    UDP_LOCAL_ADDRESS,
    UDP_PORT,
    UDP_TARGET_PORT,
)
from tests.lab.cluster.image import images

Manifest = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"

_TOLERATE_ALL = [{"operator": "Exists"}]
_TOOLS = [
    {"name": "usr", "hostPath": {"path": "/usr"}},
    {"name": "alternatives", "hostPath": {"path": "/etc/alternatives"}},
]
_TOOLS_MOUNTS = [
    {"name": "usr", "mountPath": "/usr", "readOnly": True},
    {"name": "alternatives", "mountPath": "/etc/alternatives", "readOnly": True},
]

IN_SERVICE = "ebpfnet.dev/in-service"
"""The readiness gate of Deployment web's pods: tests take a pod out of service by its condition."""

AGENT_CAPABILITIES = [
    "CHOWN", "KILL", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "SYS_MODULE", "SYS_ADMIN",
    "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID",
]  # fmt: skip
"""The real agent's (cilium-facts 1.2), but SYS_RESOURCE, which machines like CI's cannot give."""

CONFIG_KEYS = {
    "enable-endpoint-routes": "true",
    "ipv4-native-routing-cidr": "10.244.0.0/16",
    "auto-direct-node-routes": "true",
    "service-no-backend-response": "drop",
}
"""Where the lab differs from the recorded cluster whose settings it takes over."""


def pod(
    name: str, node: str, command: list[str], image: str = images.HOST, **spec: Any
) -> Manifest:
    """A pod on one node; with `images.HOST` the machine's tools are mounted."""
    container: Manifest = {
        "name": "c", "image": image, "imagePullPolicy": "Never", "command": command,
    }  # fmt: skip
    volumes = []
    if image == images.HOST:
        container["volumeMounts"] = _TOOLS_MOUNTS
        volumes = _TOOLS
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "dnsPolicy": "Default",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": volumes,
            "tolerations": _TOLERATE_ALL,
            **spec,
        },
    }


def _service(name: str, selector: str, port: int, target: int, **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"app": selector},
            "ports": [{"name": "http", "port": port, "targetPort": target}],
            **spec,
        },
    }


def agents() -> Manifest:
    """The DaemonSet of replay agents, where a reader looks for Cilium's."""
    root = str(HERE.parents[2])
    received = "HostToContainer"
    mounts = [
        *_TOOLS_MOUNTS,
        {"name": "bpf", "mountPath": "/sys/fs/bpf", "mountPropagation": received},
        {"name": "netns", "mountPath": "/var/run/cilium/netns", "mountPropagation": received},
        {"name": "state", "mountPath": str(STATE)},
        {"name": "source", "mountPath": root, "readOnly": True},
        {"name": "xtables", "mountPath": "/run/xtables.lock"},
    ]  # fmt: skip
    volumes = [
        *_TOOLS,
        {"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}},
        {"name": "netns", "hostPath": {"path": "/run/netns"}},
        {"name": "state", "hostPath": {"path": str(STATE)}},
        {"name": "source", "hostPath": {"path": root}},
        {"name": "xtables", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
    ]
    container = {
        "name": "cilium-agent",
        "image": images.HOST,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-m", "tests.lab.cluster.agent.daemon", "$(NODE)"],
        "workingDir": root,
        "env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "PATH", "value": f"{STATE}/agent-bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            {"name": "EBPFNET_LAB_STATE", "value": str(STATE)},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": AGENT_CAPABILITIES}},
        "volumeMounts": mounts,
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "cilium", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "cilium"}},
            "template": {
                "metadata": {
                    "labels": {"k8s-app": "cilium"},
                    "annotations": {"ebpfnet.dev/replay": "true"},
                },
                "spec": {
                    "hostNetwork": True,
                    "dnsPolicy": "Default",
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": _TOLERATE_ALL,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def workloads() -> list[Manifest]:
    """Pods and services that the tests use."""
    one, two, three = (node.name for node in NODES)
    sleep = ["/usr/bin/sleep", "1000000"]
    pending = pod("pending", "", sleep, nodeSelector={"ebpfnet.dev/no-such": "node"})
    del pending["spec"]["nodeName"]
    return [
        pod("client", one, sleep),
        pod("client2", two, sleep),
        pod("client3", three, sleep),
        pod("bare", one, ["/bare", "serve", "8080"], images.BARE),
        pod("bare-client", two, ["/bare"], images.BARE),
        pod("hostnet", one, sleep, hostNetwork=True),
        pending,
        _web(one),
        _service("web", "web", 80, 8080),
        _service("web-np", "web", 80, 8080, type="NodePort"),
        _load_balancer("web-lb-local", LB_LOCAL_ADDRESS, "Local"),
        _load_balancer("web-lb-cluster", LB_CLUSTER_ADDRESS, "Cluster"),
        _load_balancer("udp-lb-local", UDP_LOCAL_ADDRESS, "Local", ports=_UDP),
        _load_balancer("udp-lb-cluster", UDP_CLUSTER_ADDRESS, "Cluster", ports=_UDP),
        _service("nobackend", "no-such-app", 80, 8080),
    ]


_UDP = [{"name": "udp", "protocol": "UDP", "port": UDP_PORT, "targetPort": UDP_TARGET_PORT}]


def _load_balancer(name: str, address: str, policy: str, **spec: Any) -> Manifest:
    """A Service that cloud.py gives this address."""
    return _service(
        name, "web", 80, 8080,
        type="LoadBalancer", externalTrafficPolicy=policy, loadBalancerIP=address, **spec,
    )  # fmt: skip


def web_pod(name: str, node: str) -> Manifest:
    """A pod of the Services of Deployment web: HTTP on port 8080, and UDP (web.py)."""
    source = str(HERE / "nodes/web.py")
    web = pod(name, node, ["/usr/bin/python3", source, "8080", str(UDP_TARGET_PORT)],
              readinessGates=[{"conditionType": IN_SERVICE}])  # fmt: skip
    web["metadata"]["labels"] = {"app": "web"}
    (container,) = web["spec"]["containers"]
    mount = {"name": "source", "mountPath": source, "readOnly": True}
    container["volumeMounts"] = [*container["volumeMounts"], mount]
    volume = {"name": "source", "hostPath": {"path": source, "type": "File"}}
    web["spec"]["volumes"] = [*web["spec"]["volumes"], volume]
    return web


def _web(node: str) -> Manifest:
    """The Deployment, on one node alone."""
    web = web_pod("web", node)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": web["spec"]},
        },
    }


def definitions() -> list[Manifest]:
    """Cilium's kinds, with any content: the lab validates nothing."""
    kinds = {
        "ciliumendpoints": ("CiliumEndpoint", "Namespaced", "cep"),
        "ciliumnodes": ("CiliumNode", "Cluster", "cn"),
        "ciliumidentities": ("CiliumIdentity", "Cluster", "ciliumid"),
        "ciliumnetworkpolicies": ("CiliumNetworkPolicy", "Namespaced", "cnp"),
        "ciliumclusterwidenetworkpolicies": ("CiliumClusterwideNetworkPolicy", "Cluster", "ccnp"),
    }
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.cilium.io"},
            "spec": {
                "group": "cilium.io",
                "scope": scope,
                "names": {
                    "plural": plural,
                    "singular": kind.lower(),
                    "kind": kind,
                    "shortNames": [short],
                },
                "versions": [{"name": "v2", "served": True, "storage": True, "schema": schema}],
            },
        }
        for plural, (kind, scope, short) in kinds.items()
    ]


def cilium_objects() -> list[Manifest]:
    """Cilium's nodes and its settings; endpoints and identities follow the pods (sync.py)."""
    nodes: list[Manifest] = [
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNode",
            "metadata": {"name": node.name},
            "spec": {
                "addresses": [
                    {"type": "InternalIP", "ip": node.address},
                    {"type": "CiliumInternalIP", "ip": node.router},
                ],
                "ipam": {"podCIDRs": [node.pod_cidr]},
            },
        }
        for node in NODES
    ]
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": forms()["config"],
    }
    return [*nodes, settings]


def rights() -> list[Manifest]:
    """`sre` has tier `agents`, with exec in every namespace; `nobody` nothing."""
    return bound("sre", Tier.AGENTS, everywhere=True)


def bound(user: str, tier: Tier, *, everywhere: bool = False) -> list[Manifest]:
    """The roles of a tier, under names of the user's own, and their bindings.

    Args:
        user: gets them.
        tier: its roles, those of single flags left out.
        everywhere: bind each in the whole cluster; else where the tier says, for pods of `default`.
    """
    made: list[Manifest] = []
    for role in ROLES[tier]:
        if role.flag:
            continue
        object_ = manifest(role)
        name = f"{user}-{role.name}"
        made.append({**object_, "metadata": {"name": name}})
        for place in ("",) if everywhere else role.namespaces or ("",):
            where = {"namespace": "default" if place == PLACE else place} if place else {}
            made.append(
                {
                    "apiVersion": object_["apiVersion"],
                    "kind": "RoleBinding" if place else "ClusterRoleBinding",
                    "metadata": {"name": name, **where},
                    "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
                    "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
                }
            )
    return made


VERBATIM = (
    "bpf egress list", "bpf egress list -o json", "bpf ipmasq list",
    "bpf ipmasq list -o json", "bpf nat list", "bpf nat list -o json",
)  # fmt: skip
"""Commands whose recorded answer holds nothing that differs in the lab."""
RECORDED = {"config -a": "config-a.txt"}
"""The same, of longer answers that no scenario holds (agent/recorded)."""


def forms() -> Manifest:
    """Recorded forms of the native cluster that the replay agents fill (agent/answers.py)."""
    found: Manifest = {
        "verbatim": {
            command: {
                "exit_code": 0,
                "stdout": (HERE / "agent/recorded" / name).read_text(),
                "stderr": "",
            }
            for command, name in RECORDED.items()
        }
    }
    recorded = HERE.parents[1] / "scenarios/native-iptables/records.jsonl"
    for line in recorded.read_text().splitlines():
        record = json.loads(line)
        words, text = record["argv"], record["stdout"]
        if words[-2:] == ["get", "cilium-config"] and "config" not in found:
            found["config"] = {**json.loads(text)["data"], **CONFIG_KEYS}
        if record["where"].get("node") != "node1" or words[0] != "cilium-dbg":
            continue
        command = " ".join(words[1:])
        if command in VERBATIM:
            kept = ("exit_code", "stdout", "stderr")
            found["verbatim"][command] = {part: record[part] for part in kept}
        elif command == "status -o json":
            found["status"] = text
        elif command == "endpoint list -o json":
            host, pod = json.loads(text)
            found["host endpoint"], found["pod endpoint"] = json.dumps(host), json.dumps(pod)
        elif command == "identity list -o json":
            # Numbers below 256 and node-local ones mean the same in every cluster.
            found["reserved identities"] = [
                one for one in json.loads(text) if one["id"] < 256 or one["id"] > 65535
            ]
    return found
