"""Objects of the API server: recorded lists, single objects, old EndpointSlices."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kube import KubeObjects, Lease, NodeRow
from kubectl_ebpfnet.parse import kube
from kubectl_ebpfnet.parse.cilium import agent
from tests.parse import recorded
from tests.parse.cilium.test_cilium_fuzz import WORDS, members
from tests.parse.fuzzing import documents


def test_the_recorded_pods() -> None:
    pods = {
        (p.namespace, p.name): p for data in recorded.api("pods") for p in kube.objects(data).pods
    }
    client = pods["default", "client"]
    assert (client.node, client.phase, client.ready, client.host_network) == (
        "node2", "Running", True, False,
    )  # fmt: skip
    agents = [p for p in pods.values() if p.label("k8s-app") == "cilium"]
    assert agents
    assert all(p.host_network for p in agents)


def test_the_recorded_services_and_endpoints() -> None:
    services = {s.name: s for data in recorded.api("services") for s in kube.objects(data).services}
    assert services["web"].ports[0].port == 80
    assert services["web-lb"].ingress_addresses == (ip_address("10.111.111.129"),)
    assert services["web-lb"].external_traffic_policy == "Local"
    ends = [e for data in recorded.api("endpointslices") for e in kube.objects(data).endpoints]
    web = [e for e in ends if e.service == "web"]
    assert web
    assert all(e.ready and e.port == 8080 and e.pod == "web" and e.node == "node1" for e in web)


def test_the_recorded_cilium_objects() -> None:
    found = [kube.objects(data) for data in recorded.api("ciliumendpoints")]
    pods = {(e.namespace, e.pod): (e, node) for one in found for e, node in one.cilium_endpoints}
    endpoint, node = pods["default", "client"]
    assert endpoint.identity
    assert node == ip_address("172.30.0.12")
    nodes = {
        n.name: n for data in recorded.api("ciliumnodes") for n in kube.objects(data).cilium_nodes
    }
    assert nodes["node1"].addresses == (ip_address("172.30.0.11"),)
    assert nodes["node1"].router_addresses
    policies = [p for data in recorded.api("ciliumnetworkpolicies")
                for p in kube.objects(data).network_policies]  # fmt: skip
    assert "CiliumNetworkPolicy default/client-egress" in {policy.title for policy in policies}


def slice_of(api: str, endpoint: dict[str, Any]) -> bytes:
    """An EndpointSlice with one endpoint."""
    return json.dumps({
        "apiVersion": f"discovery.k8s.io/{api}", "kind": "EndpointSlice",
        "metadata": {"name": "web-x", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], **endpoint}],
    }).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        ({}, True, True, False),
        ({"ready": False}, False, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
        ({"ready": None, "serving": None, "terminating": None}, True, True, False),
    ],
)
def test_conditions_count_as_the_api_says(
    conditions: dict[str, Any], ready: bool, serving: bool, terminating: bool
) -> None:
    (end,) = kube.objects(slice_of("v1", {"conditions": conditions})).endpoints
    assert (end.ready, end.serving, end.terminating) == (ready, serving, terminating)


def test_an_old_slice_names_its_node_in_its_topology() -> None:
    data = slice_of("v1beta1", {"topology": {"kubernetes.io/hostname": "node1"}})
    (end,) = kube.objects(data).endpoints
    assert end.node == "node1"


def test_a_typed_list_gives_its_items_their_kind() -> None:
    data = json.dumps({"kind": "PodList", "items": [{"metadata": {"name": "a", "namespace": "b"}}]})
    (pod,) = kube.objects(data.encode()).pods
    assert (pod.namespace, pod.name, pod.node, pod.phase) == ("b", "a", "", "")


def test_why_a_pod_does_not_run() -> None:
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                   "message": "0/2 nodes are available"}  # fmt: skip
    for status, reason in (
        ({"containerStatuses": [waiting]}, "CrashLoopBackOff"),
        ({"conditions": [unscheduled]}, "Unschedulable: 0/2 nodes are available"),
    ):
        data = json.dumps({"kind": "Pod", "metadata": {"name": "a"}, "status": status})
        assert kube.objects(data.encode()).pods[0].reason == reason


def test_a_deployments_pod_belongs_to_it() -> None:
    owner = {"kind": "ReplicaSet", "name": "web-5d4f8c7b9", "controller": True}
    data = json.dumps(
        {"kind": "Pod", "metadata": {"name": "web-5d4f8c7b9-x", "ownerReferences": [owner]}}
    )
    (pod,) = kube.objects(data.encode()).pods
    assert pod.belongs_to("Deployment", "web")
    assert not pod.belongs_to("Deployment", "we")
    assert pod.belongs_to("ReplicaSet", "web-5d4f8c7b9")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"kind":"Pod"}', b'{"kind":"Pod","metadata":[]}']
)
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(ParseError):
        kube.objects(data)


def test_unknown_kinds_are_left_out() -> None:
    assert kube.objects(b'{"kind":"Event"}') == kube.KubeObjects()


def test_a_lease_and_its_holder() -> None:
    data = (
        b'{"kind":"Lease","metadata":{"name":"cilium-l2announce-default-web","namespace":"ks"},'
        b'"spec":{"holderIdentity":"worker","leaseDurationSeconds":15}}'
    )
    (found,) = kube.objects(data).leases
    assert found == Lease("ks", "cilium-l2announce-default-web", "worker", "", 15)


def test_an_identitys_labels_are_written_as_the_agent_writes_them() -> None:
    labels = {"k8s:app": "web", "reserved:init": ""}
    data = json.dumps(
        {"kind": "CiliumIdentity", "metadata": {"name": "4711"}, "security-labels": labels}
    )
    (identity,) = kube.objects(data.encode()).identities
    assert (identity.id, identity.labels) == (4711, ("k8s:app=web", "reserved:init"))


def test_the_recorded_identities_are_those_that_agents_know() -> None:
    """Of the same cluster: its objects, and `identity list` of its agents."""
    objects = {
        (i.id, frozenset(i.labels))
        for data in recorded.api("ciliumidentities")
        for i in kube.objects(data).identities
    }
    agents = {
        (i.id, frozenset(i.labels))
        for data in recorded.outputs("cilium-dbg", "identity", "list", "-o", "json")
        for i in agent.identities(data)
    }
    assert objects
    assert objects <= agents


def test_an_evicted_pod_says_so_before_its_conditions() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}
    status = {"phase": "Failed", "reason": "Evicted", "conditions": [ready]}
    data = json.dumps({"kind": "Pod", "metadata": {"name": "a"}, "status": status})
    assert kube.objects(data.encode()).pods[0].reason == "Evicted"


def test_lists_are_put_together_with_each_object_once() -> None:
    pods = [kube.objects(data) for data in recorded.api("pods")]
    empty = kube.objects(b'{"kind":"List","items":[]}')
    both = KubeObjects.of_all([pods[0], pods[0], empty])
    assert both == pods[0]


def test_what_a_load_balancer_service_says() -> None:
    (web,) = kube.objects(json.dumps({
        "kind": "Service",
        "metadata": {"name": "web-lb", "namespace": "default", "labels": {"app": "web"},
                     "annotations": {"service.cilium.io/forwarding-mode": "dsr"}},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                 "healthCheckNodePort": 31234, "publishNotReadyAddresses": True,
                 "loadBalancerSourceRanges": [" 10.0.0.0/8 ", "fd00::/8", "rubbish"],
                 "ports": [{"port": 80, "nodePort": 30080}]},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "Proxy"},
            {"hostname": "lb.example.com"}]}},
    }).encode()).services  # fmt: skip
    assert web.ingress_addresses == (ip_address("192.0.2.1"), ip_address("192.0.2.2"))
    assert web.proxied_addresses == (ip_address("192.0.2.2"),)
    assert web.ingress_hostnames == ("lb.example.com",)
    assert [str(prefix) for prefix in web.source_ranges] == ["10.0.0.0/8", "fd00::/8"]
    assert web.publish_not_ready
    assert web.labels == (("app", "web"),)
    assert web.annotation("service.cilium.io/forwarding-mode") == "dsr"
    assert web.annotation("service.cilium.io/type") == ""


def node_with(spec: dict[str, Any], ready: dict[str, Any]) -> bytes:
    """A Node with two addresses."""
    return json.dumps({
        "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "a"}}, "spec": spec,
        "status": {"nodeInfo": {"kubeletVersion": "v1.20.2"},
                   "conditions": [{"type": "Ready", **ready}], "addresses": [
            {"type": "InternalIP", "address": "192.0.2.11"},
            {"type": "InternalIP", "address": "2001:db8::11"}]},
    }).encode()  # fmt: skip


def test_a_cordoned_node() -> None:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    data = node_with({"unschedulable": True, "taints": [taint]}, {"status": "True"})
    (node,) = kube.objects(data).nodes
    assert (node.unschedulable, node.taints) == (True, ("node.kubernetes.io/unschedulable",))
    assert (node.ready, node.reason, node.labels) == (True, "", (("zone", "a"),))
    assert node.version == "v1.20.2"
    assert node.address(6) == ip_address("2001:db8::11")
    assert node.address(4) == ip_address("192.0.2.11")


def test_why_a_node_is_not_ready() -> None:
    said = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped."}
    (node,) = kube.objects(node_with({}, said)).nodes
    assert (node.ready, node.reason) == (False, "Kubelet stopped.")
    (node,) = kube.objects(node_with({}, {"status": "False", "reason": "KubeletNotReady"})).nodes
    assert (node.ready, node.reason) == (False, "KubeletNotReady")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"phase": "Running"}, "Running"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                ],
            },
            "Unschedulable",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
                "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}],
            },
            "ImagePullBackOff",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
                ],
            },
            "Error",
        ),
        ({}, "Unknown"),
    ],
)
def test_states(status: dict[str, Any], state: str) -> None:
    assert kube.pod({"status": status}).state == state


def test_the_containers_of_a_pod() -> None:
    statuses = [
        {"name": "a", "containerID": "containerd://abc", "state": {"running": {}}},
        {"name": "b", "restartCount": 3, "state": {"terminated": {"exitCode": 9, "reason": "OOM"}}},
    ]
    annotations = {"kubectl.kubernetes.io/default-container": "b"}
    found = kube.pod({
        "metadata": {"name": "p", "uid": "u", "annotations": annotations},
        "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]},
        "status": {"containerStatuses": statuses, "initContainerStatuses": [{"name": "c"}]},
    })  # fmt: skip
    assert (found.uid, found.image, found.containers) == ("u", "i", ("b", "a"))
    assert found.running == ("a",)
    assert [(each.name, each.id, each.restarts) for each in found.main_statuses] == [
        ("a", "abc", 0), ("b", "", 3),
    ]  # fmt: skip
    assert [each.name for each in found.statuses] == ["c", "a", "b"]
    assert (found.statuses[2].reason, found.statuses[2].exit_code) == ("OOM", 9)


@pytest.mark.parametrize("read", [kube.pod, kube.node, kube.service, kube.slice_endpoints])
@given(draw=st.data())
def test_a_decoded_object_may_be_anything(read: Callable[[Any], Any], draw: st.DataObject) -> None:
    str(read(draw.draw(documents(members("objects"), WORDS))))


def test_a_table_of_nodes_is_rows() -> None:
    heads = [{"name": name} for name in ("Name", "Internal-IP", "External-IP")]
    rows = [{"cells": ["a", "10.0.0.1", "<none>"]}, {"cells": ["b", "fd00::1", "1.2.3.4"]}]
    table = {"kind": "Table", "columnDefinitions": heads, "rows": rows}
    assert kube.objects(json.dumps(table).encode()).node_rows == (
        NodeRow("a", (ip_address("10.0.0.1"),)),
        NodeRow("b", (ip_address("fd00::1"),), (ip_address("1.2.3.4"),)),
    )
    rows.append({"cells": ["", "10.0.0.1", "<none>"]})
    with pytest.raises(ParseError):
        kube.objects(json.dumps(table).encode())
    table["columnDefinitions"] = [{"name": "Name"}]
    assert kube.objects(json.dumps(table).encode()) == KubeObjects()
