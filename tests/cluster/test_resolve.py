"""Words → objects: the parser alone, then look-ups against the fake API server."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_ebpfnet.cluster.agents import container_of, find_agents
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.resolve import find_node, find_pod, find_service, selector_text
from kubectl_ebpfnet.errors import Forbidden, NotFound
from kubectl_ebpfnet.model.kube import Node, Service
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply

FORBIDDEN = status_reply(403, "Forbidden", "no")


@pytest.fixture
def api(session: Session) -> Api:
    return Api(session)


# --- objects --------------------------------------------------------------------------------------


def pod(name: str, *, ready: bool = True, node: str = "n1", **more: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"phase": "Running", "conditions": [condition], **more.pop("status", {})}
    return {
        "metadata": {"name": name, "namespace": "default", **more.pop("metadata", {})},
        "spec": {"nodeName": node, "containers": [{"name": "main"}], **more},
        "status": status,
    }


def listed(*items: dict[str, Any], kind: str = "Pod") -> Reply:
    return Reply(200, {"kind": f"{kind}List", "apiVersion": "v1", "items": list(items)})


def nobody(_: str) -> None:
    raise AssertionError("nothing is to be said")


def test_pod_service_and_node(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/namespaces/default/pods/client"] = Reply(200, pod("client"))
    web, node = {"metadata": {"name": "web"}}, {"metadata": {"name": "n1"}}
    fake.routes["/api/v1/namespaces/shop/services/web"] = Reply(200, web)
    fake.routes["/api/v1/nodes/n1"] = Reply(200, node)
    found = find_pod(api, "pod", "client", "default", nobody)
    assert (found.name, found.namespace, found.node, found.serves) == ("client", "default", "n1", 1)
    assert find_service(api, "web", "shop") == Service("", "web", "ClusterIP", (), ())
    assert find_node(api, "n1") == Node("n1", (), ready=False)


def workload(fake: FakeApiServer, *pods: dict[str, Any], **spec: Any) -> list[str]:
    """deploy/web with these pods; gives the list that `say` fills."""
    selector = {"matchLabels": {"app": "web"}}
    fake.routes["/apis/apps/v1/namespaces/default/deployments/web"] = Reply(
        200, {"spec": {"selector": selector, **spec}}
    )

    def answer(seen: Seen) -> Reply:
        assert seen.parameters("labelSelector") == ["app=web"]
        return listed(*pods)

    fake.routes["/api/v1/namespaces/default/pods"] = answer
    return []


DEPLOY = ("deployment", "web")


def test_workload_gives_its_first_ready_pod(fake: FakeApiServer, api: Api) -> None:
    leaving = pod("web-0", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    said = workload(fake, pod("web-c"), leaving, pod("web-a", ready=False), pod("web-b"))
    found = find_pod(api, *DEPLOY, "default", said.append)
    assert found.name == "web-b"
    assert said == ["deployment/web: taking pod/web-b; 2 of 4 pods are ready"]


def test_workload_without_a_ready_pod(fake: FakeApiServer, api: Api) -> None:
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    said = workload(
        fake,
        pod("web-a", ready=False, status={"phase": "Pending"}),
        pod("web-b", ready=False, status={"containerStatuses": [waiting]}),
    )
    found = find_pod(api, *DEPLOY, "default", said.append)
    assert found.name == "web-b"
    assert said == [
        "deployment/web: taking pod/web-b, which is not ready (CrashLoopBackOff);"
        " 0 of 2 pods are ready"
    ]


def test_workload_without_pods(fake: FakeApiServer, api: Api) -> None:
    workload(fake, replicas=0)
    with pytest.raises(NotFound) as caught:
        find_pod(api, *DEPLOY, "default", nobody)
    assert caught.value.hint == "deployment/web has no pods: replicas is 0"
    workload(fake, replicas=2)
    with pytest.raises(NotFound) as caught:
        find_pod(api, *DEPLOY, "default", nobody)
    assert "kubectl describe -n default deployment/web" in caught.value.hint


def test_workload_without_a_selector_takes_no_strangers_pod(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/apis/apps/v1/namespaces/default/deployments/web"] = Reply(200, {"spec": {}})
    fake.routes["/api/v1/namespaces/default/pods"] = listed(pod("stranger"))
    with pytest.raises(NotFound):
        find_pod(api, *DEPLOY, "default", nobody)


def test_selectors() -> None:
    selector = {
        "matchLabels": {"a": "b", "c": ""},
        "matchExpressions": [
            {"key": "d", "operator": "In", "values": ["e", "f"]},
            {"key": "g", "operator": "NotIn", "values": ["h"]},
            {"key": "i", "operator": "Exists"},
            {"key": "j", "operator": "DoesNotExist"},
        ],
    }
    assert selector_text(selector) == "a=b,c=,d in (e,f),g notin (h),i,!j"


# --- what is near ---------------------------------------------------------------------------------


def hint_for(api: Api, kind: str, name: str) -> str:
    find = {
        "node": lambda: find_node(api, name),
        "service": lambda: find_service(api, name, "default"),
    }.get(kind, lambda: find_pod(api, kind, name, "default", nobody))
    with pytest.raises(NotFound) as caught:
        find()
    assert (caught.value.kind, caught.value.name) == (kind, name)
    return caught.value.hint


def test_similar_names(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/namespaces/default"] = Reply(200, {})
    fake.routes["/api/v1/pods"] = listed()
    fake.routes["/api/v1/namespaces/default/pods"] = listed(
        *(pod(name) for name in ("web-5d4f8-x2", "client-0", "other"))
    )
    assert hint_for(api, "pod", "web") == "did you mean web-5d4f8-x2?"
    assert hint_for(api, "pod", "cleint-0") == "did you mean client-0?"
    assert hint_for(api, "pod", "zzzzz") == "in default there are client-0, other, web-5d4f8-x2"
    fake.routes["/api/v1/namespaces/default/pods"] = listed()
    assert hint_for(api, "pod", "web") == "in default there are none"


def test_same_name_in_another_namespace(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/namespaces/default"] = Reply(200, {})
    fake.routes["/api/v1/namespaces/default/pods"] = listed(pod("web-1"))

    def everywhere(seen: Seen) -> Reply:
        assert seen.parameters("fieldSelector") == ["metadata.name=web"]
        return listed(pod("web", metadata={"namespace": "shop"}))

    fake.routes["/api/v1/pods"] = everywhere
    assert hint_for(api, "pod", "web") == "pod/web is in namespace shop: use -n"


def test_hints_with_few_rights(fake: FakeApiServer, api: Api) -> None:
    for path in ("/api/v1/namespaces/default", "/api/v1/pods"):
        fake.routes[path] = FORBIDDEN
    fake.routes["/api/v1/namespaces/default/pods"] = listed(pod("web-1"))
    assert hint_for(api, "pod", "web") == "did you mean web-1?"
    fake.routes["/api/v1/namespaces/default/pods"] = FORBIDDEN
    assert hint_for(api, "pod", "web") == ""


def test_namespace_that_is_not_there(fake: FakeApiServer, api: Api) -> None:
    assert "namespace 'default' does not exist" in hint_for(api, "pod", "web")
    assert "namespace 'default' does not exist" in hint_for(api, *DEPLOY)


def test_nodes_and_services_nearby(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/namespaces/default"] = Reply(200, {})
    fake.routes["/api/v1/nodes"] = listed({"metadata": {"name": "node-a"}}, kind="Node")
    fake.routes["/api/v1/services"] = listed(kind="Service")
    fake.routes["/api/v1/namespaces/default/services"] = listed(
        {"metadata": {"name": "website"}}, kind="Service"
    )
    fake.routes["/apis/apps/v1/namespaces/default/deployments"] = listed(
        {"metadata": {"name": "web2"}}, kind="Deployment"
    )
    assert hint_for(api, "node", "node-b") == "did you mean node-a?"
    assert hint_for(api, "service", "web") == "did you mean website?"
    assert hint_for(api, *DEPLOY) == "did you mean web2?"


# --- agents ---------------------------------------------------------------------------------------


def agent(name: str, node: str, **more: Any) -> dict[str, Any]:
    containers = more.pop("containers", [{"name": "cilium-agent"}])
    metadata = {"namespace": "kube-system", **more.pop("metadata", {})}
    return pod(name, node=node, containers=containers, metadata=metadata, **more)


def container_status(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "cilium-agent", "restartCount": 7, "state": state}]}


def test_agents_by_node(fake: FakeApiServer, api: Api) -> None:
    crashing = container_status(waiting={"reason": "CrashLoopBackOff"})
    fake.routes["/api/v1/pods"] = listed(
        agent("cilium-a", "n1", status=container_status(running={"startedAt": "x"})),
        agent("cilium-b", "n2", ready=False, status=crashing),
        agent("cilium-c", ""),
        agent("cilium-d", "n3", containers=[{"name": "sidecar"}, {"name": "cilium-agent"}]),
        agent("cilium-e", "n4", containers=[{"name": "replay"}]),
    )
    agents = find_agents(api)
    assert fake.seen[0].parameters("labelSelector") == ["k8s-app=cilium"]
    assert set(agents) == {"n1", "n2", "n3", "n4"}
    good, bad = agents["n1"], agents["n2"]
    assert (good.namespace, good.name, container_of(good)) == (
        "kube-system", "cilium-a", "cilium-agent",
    )  # fmt: skip
    assert (good.serves, good.running, good.state) == (True, ("cilium-agent",), "Running")
    assert (bad.serves, bad.running, bad.state) == (False, (), "CrashLoopBackOff")
    assert bad.statuses[0].restarts == 7
    assert container_of(agents["n3"]) == "cilium-agent"
    assert container_of(agents["n4"]) == "replay"


def test_better_agent_of_a_node_that_has_two(fake: FakeApiServer, api: Api) -> None:
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    fake.routes["/api/v1/pods"] = listed(
        agent("cilium-a", "n1", metadata=leaving), agent("cilium-b", "n1"), agent("cilium-c", "n2")
    )
    assert find_agents(api)["n1"].name == "cilium-b"


def test_agents_for_a_user_who_may_not_list_everywhere(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/pods"] = FORBIDDEN
    for namespace in ("kube-system", "cilium-system"):
        fake.routes[f"/api/v1/namespaces/{namespace}/pods"] = FORBIDDEN
    fake.routes["/api/v1/namespaces/cilium/pods"] = listed(agent("cilium-a", "n1"))
    assert set(find_agents(api)) == {"n1"}
    fake.routes["/api/v1/namespaces/cilium/pods"] = FORBIDDEN
    with pytest.raises(Forbidden) as caught:
        find_agents(api)
    assert caught.value.namespace == ""  # the list of all namespaces is what is missing


def test_no_agents(fake: FakeApiServer, api: Api) -> None:
    fake.routes["/api/v1/pods"] = listed()
    assert find_agents(api) == {}
