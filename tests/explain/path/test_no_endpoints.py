"""Why a Service has no backend, by its objects and by Cilium's map: a real cluster, with one thing
changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, fail, finding, say
from tests.explain.path.variants import edit

SERVICES = "../features/services/agent.zip"
LB, CT, LISTED = (
    "cilium-dbg bpf lb list",
    "cilium-dbg bpf ct list global -d",
    "cilium-dbg service list -o json",
)
WEB = "10.97.125.117"
"""The ClusterIP of svc web, whose one endpoint is 10.44.0.5:8080 on node1."""


def lines_without(pattern: str) -> Callable[[str], str]:
    return lambda text: "".join(
        line for line in text.splitlines(True) if not re.search(pattern, line)
    )


def objects(kind: str, name: str, alter: Callable[[Any], object]) -> Change:
    """An object of the API, or the EndpointSlice of a Service, altered."""

    def each(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            labels = item["metadata"].get("labels", {})
            if name in (item["metadata"]["name"], labels.get("kubernetes.io/service-name")):
                alter(item)
        return json.dumps(document)

    return edit("api", f"get {kind} -A", each)


def unlisted(text: str) -> str:
    """The agent's list without svc web."""
    return json.dumps([each for each in json.loads(text) if WEB not in json.dumps(each)])


UNTRACKED = edit("node2", CT, lines_without(rf"{WEB}|10\.44\.0\.5:8080"))
NO_BACKEND = (
    edit("node2", LB, lines_without(rf"{WEB}:80/TCP \(1\)")),
    edit("node2", LISTED, unlisted),
    UNTRACKED,
)


def without_backend(*changes: Change) -> Bundle:
    """The map has the frontend of svc web and no backend of it."""
    return changed(SERVICES, *NO_BACKEND, *changes)


def to_web(*changes: Change) -> Path:
    return ask(without_backend(*changes), "client", "svc/web")


def no_endpoints() -> Change:
    return objects("endpointslices", "web", lambda item: item.update(endpoints=[]))


def selector(**labels: str) -> Change:
    return objects("services", "web", lambda item: item["spec"].update(selector=labels))


@pytest.mark.parametrize(
    ("labels", "cause", "fix"),
    [
        ({"app": "webb"}, "has app=web where the selector has app=webb", "app: web"),
        ({"app": "web", "tier": "front"}, "and has no label tier", "no tier"),
        ({"name": "web"}, "has app=web where the selector has name=web", "in place of name"),
        ({"x": "y"}, "no pod in namespace default matches its selector x=y", "scaled to 0"),
    ],
)  # fmt: skip
def test_the_nearest_label_is_named(labels: dict[str, str], cause: str, fix: str) -> None:
    path = to_web(no_endpoints(), selector(**labels))
    assert dropped_at(path).kind == "load-balancing"
    assert cause in path.cause
    assert path.fix is not None
    assert fix in path.fix.text
    assert path.drop is not None
    assert path.drop.object == "Service default/web"


def test_pods_that_nobody_listed_are_not_said_to_be_none() -> None:
    path = to_web(no_endpoints(), selector(app="webb"), fail("", "get pods -A", "forbidden"))
    assert "which pods there are was not read" in path.cause
    assert "comes nearest" not in path.cause


def test_a_list_of_pods_that_was_cut_short_is_none() -> None:
    path = to_web(no_endpoints(), selector(app="webb"), say("", "get pods -A", '{"items": ['))
    assert "which pods there are was not read" in path.cause


def test_slices_of_another_service_say_nothing_of_this_one() -> None:
    """A rule with toServices has slices of its Service read, whatever of the destination's."""

    def of_another(record: Record) -> Record:
        if record.command != "get endpointslices -A":
            return record
        document = json.loads(record.stdout.read())
        for item in document["items"]:
            item["metadata"]["labels"] = {"kubernetes.io/service-name": "other"}
        argv = ("get", "endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=other")
        return replace(record, argv=argv, stdout=InMemory(json.dumps(document).encode()))

    path = to_web(of_another)
    assert "its EndpointSlices are not recorded" in path.cause
    healthy = ask(changed(SERVICES, of_another), "client", "svc/web")
    assert healthy.verdict in ("delivered", "reachable")
    assert not [each for each in healthy.findings if each.severity == "error"]


def test_of_several_pods_the_one_that_is_ready_is_said_to_be() -> None:
    def first_is_not(text: str) -> str:
        document = json.loads(text)
        web = next(i for i in document["items"] if i["metadata"]["name"].startswith("web-"))
        other = json.loads(json.dumps(web))
        other["metadata"]["name"] = "first"
        other["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        document["items"].insert(0, other)
        return json.dumps(document)

    path = to_web(no_endpoints(), edit("api", "get pods -A", first_is_not))
    assert "its selector matches pod default/web-" in path.cause


def test_values_that_no_label_can_have_are_not_compared() -> None:
    long = "x" * 100_000
    path = to_web(no_endpoints(), selector(app=long))
    assert "no pod in namespace default matches its selector" in path.cause


def test_a_port_by_a_name_that_no_container_declares() -> None:
    def renamed(item: Any) -> None:
        item["spec"]["ports"][0]["targetPort"] = "htpp"

    path = to_web(no_endpoints(), objects("services", "web", renamed))
    assert "its targetPort htpp is a name, and no container of pod default/web-" in path.cause


def test_a_selector_that_matches_and_slices_that_are_empty() -> None:
    assert "kube-controller-manager" in to_web(no_endpoints()).cause


def test_a_service_without_a_selector() -> None:
    path = to_web(no_endpoints(), objects("services", "web", lambda i: i["spec"].pop("selector")))
    assert "it has no selector" in path.cause


def test_a_pod_that_is_not_ready_is_the_object() -> None:
    def unready(item: Any) -> None:
        for end in item["endpoints"]:
            end["conditions"] = {"ready": False, "serving": False, "terminating": False}

    path = to_web(objects("endpointslices", "web", unready))
    assert re.search(r"none of its 1 endpoints is ready: 10\.44\.0\.5:8080 \(pod web-", path.cause)
    assert path.drop is not None
    assert path.drop.object.startswith("Pod default/web-")


def test_an_agent_behind_is_the_object() -> None:
    path = to_web()
    assert "Cilium on node2 is behind its EndpointSlices: they name 10.44.0.5:8080" in path.cause
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_a_frontend_that_the_map_lacks() -> None:
    gone = edit("node2", LB, lines_without(rf"{WEB}:80/"))
    path = ask(
        changed(SERVICES, gone, edit("node2", LISTED, unlisted), UNTRACKED), "client", "svc/web"
    )
    assert path.verdict == "unknown"
    assert "has no frontend ClusterIP 10.97.125.117:80/TCP of svc default/web" in path.cause
    assert finding(path, "nothing on node2 load-balances").severity == "error"


def test_a_service_that_is_left_to_another_proxy() -> None:
    def labelled(item: Any) -> None:
        item["metadata"].setdefault("labels", {})["service.kubernetes.io/service-proxy-name"] = "x"

    gone = edit("node2", LB, lines_without(rf"{WEB}:80/"))
    bundle = changed(
        SERVICES, gone, edit("node2", LISTED, unlisted), UNTRACKED,
        objects("services", "web", labelled),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web")
    assert "is left to the proxy x by its label" in path.cause
    assert path.fix is not None
    assert path.fix.command.endswith("service-proxy-name-")


def test_an_address_that_is_left_to_a_load_balancer_outside() -> None:
    """KEP-1860: Cilium makes no frontend of an address with ipMode Proxy."""

    def proxied(item: Any) -> None:
        item["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy"

    def unlisted_too(text: str) -> str:
        return json.dumps([each for each in json.loads(text) if "172.31.7.242" not in str(each)])

    bundle = changed(
        SERVICES, edit("node2", LB, lines_without(r"172\.31\.7\.242:80/")),
        edit("node2", LISTED, unlisted_too), UNTRACKED,
        objects("services", "web-lb-cluster", proxied),
    )  # fmt: skip
    path = ask(bundle, "client", "172.31.7.242:80")
    assert path.verdict == "unknown"
    assert "has 172.31.7.242 with ipMode Proxy" in path.cause
    assert "behind" not in path.cause
    assert path.fix is not None
    assert path.fix.command == "kubectl get service -n default web-lb-cluster -o yaml"


def dead(text: str) -> str:
    return text.replace("10.44.0.5:8080/TCP (5) (1)", "10.44.0.99:8080/TCP (5) (1)")


def test_a_dead_backend_in_the_map_is_the_agents_fault() -> None:
    bundle = changed(SERVICES, edit("node2", LB, dead), edit("node2", LISTED, unlisted), UNTRACKED)
    path = ask(bundle, "client", "svc/web")
    assert dropped_at(path).node == "node1"
    assert path.cause.startswith(
        "Cilium on node2 sends svc default/web to 10.44.0.99:8080, which no"
    )
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_one_dead_backend_of_two_brings_its_remedy() -> None:
    row = f"{WEB}:80/TCP (2)      10.44.0.99:8080/TCP (5) (2)\n"
    path = ask(
        changed(SERVICES, edit("node2", LB, lambda text: text + row), UNTRACKED),
        "client",
        "svc/web",
    )
    assert path.verdict == "unknown"
    assert "1 of 2 backends" in path.cause
    assert path.fix is not None
    assert "Cilium's agent on node2" in path.fix.text


def test_a_quarantined_slot_is_not_used() -> None:
    """The agent's list says active; the datapath goes by the map."""
    slot = "10.44.0.49:8080/TCP (37) (1)"
    bundle = changed(
        SERVICES,
        edit("node2", LB, lambda text: text.replace(slot, f"{slot} [quarantined]")),
        edit("node2", CT, lines_without(r"10\.97\.97\.116|10\.44\.1\.161:8080")),
    )
    path = ask(bundle, "client", "svc/aff")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert "→ 10.44.1.161:8080" in hop.summary
    assert "not used: 10.44.0.49:8080 quarantined" in hop.summary
    assert not [each for each in path.findings if each.severity in ("error", "warning")]


def test_a_slot_that_the_slices_call_terminating_is_not_used() -> None:
    """The map keeps such slots behind those that it chooses from, and does not print its count."""

    def terminating(item: Any) -> None:
        for end in item["endpoints"]:
            if end["addresses"] == ["10.44.0.49"]:
                end["conditions"] = {"ready": False, "serving": True, "terminating": True}

    bundle = changed(
        SERVICES,
        objects("endpointslices", "aff", terminating),
        edit("node2", CT, lines_without(r"10\.97\.97\.116|10\.44\.1\.161:8080")),
        edit("node2", LISTED, lambda _: "[]"),
    )
    path = ask(bundle, "client", "svc/aff")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert "→ 10.44.1.161:8080" in hop.summary
    assert "not used: 10.44.0.49:8080 terminating" in hop.summary


def test_a_headless_service_whose_slices_nobody_read() -> None:
    unread = fail("", "get endpointslices -A", "forbidden")
    path = ask(changed(SERVICES, unread), "client", "svc/headless:8080")
    assert path.verdict == "unknown"
    assert "its EndpointSlices were not read" in path.cause


def test_a_headless_service_without_an_endpoint_names_its_selector() -> None:
    empty = objects("endpointslices", "headless", lambda item: item.update(endpoints=[]))
    other = objects("services", "headless", lambda i: i["spec"].update(selector={"app": "wss"}))
    path = ask(changed(SERVICES, empty, other), "client", "svc/headless:8080")
    assert path.verdict == "unknown"
    assert "svc default/headless is headless, and has no ready endpoint: no pod" in path.cause
    assert "has app=ws where the selector has app=wss" in path.cause
