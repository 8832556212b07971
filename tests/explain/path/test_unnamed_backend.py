"""Load-balancers that send to a place which no EndpointSlice of the Service names: whether somebody
answers there is decided by sockets, by what else names it, or is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.model.evidence import Record, pod_place
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, finding, say
from tests.explain.path.test_cilium_behind import LB, LIST, SLICES, endpoints, services
from tests.explain.path.test_listener import by_node_pod, socket
from tests.explain.path.test_owners import (
    PODS,
    WEB,
    WEB_ADDRESS,
    edit_argv,
    objects,
    without,
)
from tests.explain.path.test_tunnel_end import CT, RECORDED
from tests.explain.path.variants import edit, json_edit

OF_WEB = f"10.97.125.117:80/TCP (1)      {WEB_ADDRESS}:8080/TCP (5) (1)"
"""The row of svc/web's one backend in node2's map."""
STALE, ODD = "still has a backend that no EndpointSlice names", f"{WEB_ADDRESS}:9999"


def answer(
    *changes: Change, to: str = "svc/web", source: str = "client", more: tuple[Record, ...] = ()
) -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(RECORDED, *unseen, *changes, more=more), source, to)


def maps(old: str, new: str) -> Change:
    """node2's map has another backend of svc/web."""
    assert old in OF_WEB
    return edit("node2", LB, lambda text: text.replace(OF_WEB, OF_WEB.replace(old, new)))


def sockets(*ports: int, pod: str = WEB) -> tuple[Record, ...]:
    return (by_node_pod(pod_place("default", pod), *(socket("0.0.0.0", port) for port in ports)),)


def of_web(change: Callable[[Any], object]) -> Change:
    """Change the EndpointSlice of svc/web."""

    def each(value: Any) -> None:
        for item in value["items"]:
            if item["metadata"]["labels"].get("kubernetes.io/service-name") == "web":
                change(item)

    return json_edit("api", SLICES, each)


@pytest.mark.parametrize("listed", [False, True], ids=["the map alone", "the agent's list too"])
def test_a_port_that_nobody_names_is_open_where_no_socket_was_read(listed: bool) -> None:
    too = edit("node2", LIST, lambda text: text.replace('"port": 8080', '"port": 9999'))
    path = answer(maps(":8080", ":9999"), *([too] if listed else []))
    assert path.verdict == "unknown"
    assert f"sends svc default/web to {ODD}, which no EndpointSlice names" in path.reason
    assert "no container declares the port, and its sockets were not read" in path.reason
    assert finding(path, f"{STALE}: {ODD}").severity == "error"
    assert path.fix is not None
    assert "Cilium's agent on node2 is behind" in path.fix.text


def test_a_port_at_which_nothing_listens_refuses_and_the_agent_is_the_cause() -> None:
    path = answer(maps(":8080", ":9999"), more=sockets(8080))
    assert f"takes TCP {ODD}: refused with a RST" in dropped_at(path).summary
    assert path.cause.startswith(f"Cilium on node2 sends svc default/web to {ODD}")
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_a_port_at_which_the_pod_listens_takes_it_and_the_verdict_says_more() -> None:
    path = answer(maps(":8080", ":9999"), more=sockets(8080, 9999))
    assert path.verdict == "reachable"
    assert f"but Cilium on node2 sends svc default/web to {ODD}" in path.reason
    assert finding(path, STALE).severity == "warning"


def test_from_outside_the_node_that_it_enters_by_decides() -> None:
    wrong = edit("node1", LB, lambda text: text.replace(f"{WEB_ADDRESS}:8080", ODD))
    path = answer(wrong, to="172.31.7.11:30945", source="203.0.113.9")
    assert path.verdict == "unknown"
    assert f"Cilium on node1 sends svc default/web-np to {ODD}" in path.reason


def test_a_pod_that_was_not_listed_is_not_said_to_be_none() -> None:
    gone = of_web(lambda item: item.update(endpoints=[])), objects(PODS, without(WEB))
    assert "which no EndpointSlice names (ready by these: none) and no pod has;" in (
        answer(*gone).reason + ";"
    )
    path = answer(*gone, edit_argv(PODS, ("get", "pods", "-n", "other")))
    assert path.verdict == "unknown"
    assert "and no pod has that was read" in path.reason


@pytest.mark.parametrize("more", [(), sockets(8080, pod="client1")], ids=["unread", "listens"])
def test_a_pod_that_the_service_does_not_select_is_open(more: tuple[Record, ...]) -> None:
    """The address is another pod's now, which may listen at the same port."""
    path = answer(maps(WEB_ADDRESS, "10.44.0.132"), more=more)
    assert path.verdict == "unknown"
    said = "pod default/client1 has that address, and is none that svc default/web selects"
    assert said in path.reason
    assert finding(path, STALE).severity == "error"


def test_a_port_that_a_container_declares_is_presumed_to_listen() -> None:
    """targetPort changed, and the map is older."""
    path = answer(of_web(lambda item: item["ports"][0].update(port=9090)))
    assert path.verdict == "reachable"
    assert f"{WEB_ADDRESS}:8080, which no EndpointSlice names" in path.reason
    assert finding(path, STALE).severity == "warning"


def test_a_backend_that_is_not_ready_is_open_where_no_socket_was_read() -> None:
    idle = endpoints("web", ready=False, serving=False)
    path = answer(idle)
    assert path.verdict == "unknown"
    assert "which is not ready by its EndpointSlices, and its sockets were not read" in path.reason
    path = answer(idle, more=sockets(8080))
    assert path.verdict == "reachable"
    assert "which is not ready by its EndpointSlices" in path.reason
    assert finding(path, "not ready by its EndpointSlices").severity == "warning"


def test_one_backend_of_two_at_a_port_that_nobody_names_may_be_chosen() -> None:
    def one(text: str) -> str:
        (row,) = [line for line in text.splitlines() if "10.97.97.116:80/TCP (1)" in line]
        return text.replace(row, row.replace(":8080", ":9999"))

    path = answer(edit("node2", LB, one), to="svc/aff")
    assert path.verdict == "unknown"
    assert "1 of 2 backends of ClusterIP 10.97.97.116:80/TCP of svc default/aff may lose" in (
        path.reason
    )


def test_a_map_that_lacks_one_backend_of_two_sends_to_the_other() -> None:
    def one(text: str) -> str:
        return "".join(
            line.replace("(2)", "(1)") if "10.97.97.116:80/TCP (2)" in line else line
            for line in text.splitlines(True)
            if "10.97.97.116:80/TCP (1)" not in line
        )

    path = answer(edit("node2", LB, one), to="svc/aff")
    assert path.verdict == "reachable"
    assert finding(path, "the datapath of node2 lacks a backend").severity == "warning"


def test_a_frontend_of_another_service_than_the_api_servers_speaks_against_it() -> None:
    other = edit(
        "node2", LIST, lambda text: text.replace('"namespace": "default"', '"namespace": "old"')
    )
    path = answer(other)
    said = "Cilium on node2 has 10.97.125.117:80 as that of svc old/web, and svc default/web has it"
    assert path.verdict == "reachable"
    assert f"but {said}" in path.reason
    assert finding(path, said).severity == "warning"


def test_a_port_that_nobody_names_is_open_where_clusters_share_the_service() -> None:
    """Its slices name the pods of this cluster, and this is one."""

    def share(item: dict[str, Any]) -> None:
        item["metadata"].setdefault("annotations", {})["service.cilium.io/global"] = "true"

    path = answer(services(share, "web"), maps(":8080", ":9999"))
    assert path.verdict == "unknown"
    assert f"sends svc default/web to {ODD}, which no EndpointSlice names" in path.reason
    assert answer(services(share, "web")).verdict == "reachable"


def test_slices_that_are_behind_their_service_are_a_finding() -> None:
    def port(item: dict[str, Any]) -> None:
        item["spec"]["ports"][0]["targetPort"] = 9090

    path = answer(services(port, "web"))
    assert finding(path, "lead port 80 to 8080, and its targetPort is 9090").severity == "warning"
    named = services(lambda item: item["spec"]["ports"][0].update(targetPort="http"), "web")
    assert not [f for f in answer(named).findings if f.severity != "info"]


def test_an_answer_by_a_node_that_is_behind_is_said_of_the_way_back() -> None:
    """node1's row of client leads to nobody in native routing, where routes lead back."""
    native = "../features/native-egw-socklb/agent.zip"
    unseen = [say(node, CT, "") for node in ("node1", "node2")]
    address = "10.44.0.44"

    def away(text: str) -> str:
        return "".join(
            line.replace("172.31.7.12", "172.31.7.99") if line.startswith(f"{address}/") else line
            for line in text.splitlines(True)
        )

    wrong = edit("node1", "cilium-dbg bpf ipcache list", away)
    path = ask(changed(native, *unseen, wrong), "client", "pod/client1:8080")
    assert path.verdict == "reachable"
    assert f"but way back: the ipcache of node1 has {address} behind" in path.reason


KPR_OFF = "../features/kpr-off-iptables/agent.zip"


@pytest.mark.parametrize("listening", [(), (8080,), (8080, 9999)], ids=["unread", "no", "yes"])
def test_rules_of_kube_proxy_with_another_port_are_weighed_alike(
    listening: tuple[int, ...],
) -> None:
    pod = "web-7c469c57c9-tzz6m"
    wrong = edit(
        "node2", "iptables-save -c", lambda t: t.replace("10.44.1.9:8080", "10.44.1.9:9999")
    )
    unseen = [say(node, CT, "") for node in ("node1", "node2")]
    more = sockets(*listening, pod=pod) if listening else ()
    path = ask(changed(KPR_OFF, *unseen, wrong, more=more), "node/node2", "svc/web")
    verdicts = {(): "unknown", (8080,): "dropped", (8080, 9999): "reachable"}
    assert path.verdict == verdicts[listening]
    assert "they send it to 10.44.1.9:9999, which no EndpointSlice names" in (
        path.reason + path.cause
    )
    behind = finding(path, "kube-proxy's rules on node2 are behind svc default/web")
    assert behind.severity == ("warning" if listening else "error")
