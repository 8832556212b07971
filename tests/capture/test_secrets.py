"""Secrets of API objects never get past `objects.kept`, and what a path needs does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.capture import secrets

S = "hunter2-"  # every secret below starts so

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "client",
        "namespace": "default",
        "uid": "u",
        "labels": {"app": "client"},
        "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": S + "a",
            "vault.example/secret": S + "b",
            "kubectl.kubernetes.io/default-container": "c",
        },
        "managedFields": [{"manager": S + "c"}],
        "ownerReferences": [{"kind": "ReplicaSet", "name": "client-5d4f8", "controller": True}],
    },
    "spec": {
        "nodeName": "node2",
        "hostNetwork": False,
        "serviceAccountName": "default",
        "dnsPolicy": "ClusterFirst",
        "imagePullSecrets": [{"name": S + "d"}],
        "volumes": [{"name": "v", "secret": {"secretName": S + "e"}}],
        "initContainers": [{"name": "i", "env": [{"name": "X", "value": S + "f"}]}],
        "ephemeralContainers": [{"name": "e", "args": [S + "g"]}],
        "containers": [
            {
                "name": "c",
                "image": "reg.example/" + S + "h",
                "command": ["/bin/x", "--password=" + S + "i"],
                "args": [S + "j"],
                "env": [{"name": "PASSWORD", "value": S + "k"}],
                "envFrom": [{"secretRef": {"name": S + "l"}}],
                "livenessProbe": {"exec": {"command": [S + "m"]}},
                "lifecycle": {"preStop": {"exec": {"command": [S + "n"]}}},
                "ports": [{"containerPort": 8080, "name": "http", "x": S + "o"}],
            }
        ],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.244.1.160",
        "podIPs": [{"ip": "10.244.1.160"}],
        "hostIP": "172.30.0.12",
        "containerStatuses": [
            {
                "name": "c",
                "ready": False,
                "restartCount": 3,
                "image": S + "p",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": S + "q"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 2, "message": S + "r"}},
            }
        ],
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
    },
}


@pytest.mark.parametrize(
    "whole",
    [POD, {"kind": "List", "items": [POD]}, {"kind": "PodList", "items": [{**POD, "kind": ""}]}],
    ids=["pod", "list", "typed list"],
)
def test_a_pod_full_of_secrets(whole: dict[str, object]) -> None:
    value = secrets.strip(whole)
    assert S not in json.dumps(value)
    pod = value["items"][0] if "items" in value else value
    assert pod["spec"] == {
        "nodeName": "node2",
        "hostNetwork": False,
        "serviceAccountName": "default",
        "dnsPolicy": "ClusterFirst",
        "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}],
    }
    assert pod["metadata"]["labels"] == {"app": "client"}
    assert pod["metadata"]["ownerReferences"][0]["name"] == "client-5d4f8"
    assert pod["metadata"]["annotations"] == {"kubectl.kubernetes.io/default-container": "c"}
    assert pod["status"]["podIPs"] == [{"ip": "10.244.1.160"}]
    (container,) = pod["status"]["containerStatuses"]
    assert container["state"]["waiting"] == {"reason": "CrashLoopBackOff"}
    assert container["lastState"]["terminated"] == {"reason": "Error", "exitCode": 2}


def test_cilium_config_keeps_settings_and_drops_secrets() -> None:
    data = {
        "routing-mode": "tunnel",
        "enable-bpf-masquerade": "true",
        "hubble-tls-client-secret": S,
        "etcd-password": S,
        "bgp-TOKEN": S,
        "proxy": "http://me:" + S + "@proxy:3128",
        "key": "-----BEGIN PRIVATE KEY-----" + S,
    }
    config = {"kind": "ConfigMap", "metadata": {"name": "cilium-config"}, "data": data}
    assert secrets.strip(config)["data"] == {
        "routing-mode": "tunnel",
        "enable-bpf-masquerade": "true",
    }
    config["metadata"] = {"name": "other"}
    assert "data" not in secrets.strip(config)


def test_secrets_and_unknown_kinds_keep_their_name_alone() -> None:
    for kind in ("Secret", "CiliumEnvoyConfig", "Foo"):
        value = {"kind": kind, "metadata": {"name": "x"}, "data": {"k": S}, "spec": {"k": S}}
        assert secrets.strip(value) == {
            "kind": kind,
            "metadata": {"name": "x"},
        }


def test_a_policy_keeps_its_rules_and_drops_header_values() -> None:
    rule = {"http": [{"path": "/", "headers": ["Authorization: " + S]}]}
    policy = {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "managedFields": [S]},
        "spec": {
            "description": S,
            "egress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": rule}]}],
        },
    }
    value = secrets.strip(policy)
    assert value["spec"] == {
        "egress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"path": "/"}]}}]}]
    }
    assert value["metadata"] == {"name": "p"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "items", "metadata", "spec", "status", "data", "annotations"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


json_objects = st.dictionaries(
    st.sampled_from(["kind", "items", "metadata", "spec", "status", "data", "annotations"]),
    json_values,
    max_size=4,
)


@given(json_objects, st.sampled_from(["Pod", "PodList", "ConfigMap", "Service", "List", ""]))
def test_any_json_object_gives_an_object(value: dict[str, Any], kind: str) -> None:
    if kind:
        value["kind"] = kind
    assert isinstance(secrets.strip(value), dict)


def test_what_a_probe_of_a_load_balancer_needs_is_kept() -> None:
    node = {
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"zone": "a"}, "annotations": {"x": S + "s"}},
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "False", "message": "why"}]},
    }
    service = {
        "kind": "Service",
        "metadata": {
            "name": "web",
            "labels": {"service.kubernetes.io/service-proxy-name": "other"},
            "annotations": {"service.cilium.io/forwarding-mode": "dsr", "vault": S + "t"},
        },
        "spec": {"loadBalancerSourceRanges": ["10.0.0.0/8"], "publishNotReadyAddresses": True},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "Proxy"}]}},
    }
    kept = secrets.strip({"kind": "List", "items": [node, service]})
    assert S not in json.dumps(kept)
    node["metadata"] = {"name": "n1", "labels": {"zone": "a"}}
    service["metadata"]["annotations"] = {"service.cilium.io/forwarding-mode": "dsr"}
    assert kept["items"] == [node, service]
