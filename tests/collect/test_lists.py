"""Live `flows` and `programs` of several pods, and `flows --to` an object: who is asked what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kubectl_ebpfnet.collect import lists
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.lists import CapturedLists, LiveLists, PeerObject, PodChoice
from kubectl_ebpfnet.collect.scope import MOST_PEERS, Scope, flows_scope
from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.flows.of_pods import of_pods
from kubectl_ebpfnet.model.evidence import PlaceKind
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from tests.collect.conftest import Opened


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(cluster: Opened, said: list[str]) -> Any:
    session, replay = cluster("vxlan-kpr")
    with Gatherer(session, NodeAccess(Mode.AUTO), warn=said.append) as gatherer:
        yield LiveLists(gatherer, 50), CapturedLists(replay.bundle, "default", said.append), replay


def test_pods_by_label_and_their_nodes_are_asked(opened: Any) -> None:
    live, captured, replay = opened
    found = live.pods(PodChoice(everywhere=False, selector="app=web"), lambda a: flows_scope(a, ()))
    assert [pod.name for pod in found.pods] == ["web"]
    assert (found.target, found.left_out) == ("pods in namespace default with app=web", 0)
    assert {place.node for place in found.bundle.places(PlaceKind.AGENT)} == {"node1"}
    again = captured.pods(PodChoice(False, "app=web"), lambda a: flows_scope(a, ()))
    ends = [
        [str(flow.flow) for flow in of_pods(one.pods, "", one.bundle).flows]
        for one in (found, again)
    ]
    assert ends[0] == ends[1] != []
    assert {pod.partition("-")[0] for _, pod, _ in replay.execs} == {"cilium"}


def test_at_most_so_many_pods_are_asked(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live, _, _ = opened
    whole = live.pods(PodChoice(everywhere=True), lambda _: Scope(Need.FLOWS))
    monkeypatch.setattr(lists, "MOST_PODS", 1)
    found = live.pods(PodChoice(everywhere=True), lambda _: Scope(Need.FLOWS))
    assert len(found.pods) == 1
    assert found.left_out == len(whole.pods) - 1 > 0
    assert found.target == "pods in all namespaces"


@dataclass
class Asked:
    kind: str
    name: str
    port: int | str | None = None

    def of(self, reader: lists.ListReader) -> set[tuple[str, int | None]]:
        found = reader.peers(PeerObject(self.kind, "", self.name, self.port, TCP))
        return {(str(each.peer), each.peer_port) for each in found}


@pytest.mark.parametrize(
    "asked",
    [Asked("pod", "web"), Asked("pod", "web", 80), Asked("service", "web"), Asked("node", "node1")],
    ids=str,
)
def test_an_object_is_its_addresses_live_as_in_a_capture(opened: Any, asked: Asked) -> None:
    live, captured, _ = opened
    assert asked.of(live) == asked.of(captured) != set()
    if asked.kind == "service":  # its own address, and the endpoint behind it
        assert len(asked.of(live)) == 2


def test_what_is_not_there_is_said(opened: Any) -> None:
    for reader in opened[:2]:
        for kind in ("pod", "service", "node"):
            with pytest.raises(NotFound):
                Asked(kind, "nosuch").of(reader)
        with pytest.raises(UsageError, match="no such port"):
            Asked("service", "web", 81).of(reader)


def test_a_service_with_many_endpoints_is_filtered_here() -> None:
    many = tuple(FlowFilter(peer_port=port, protocol=TCP) for port in range(MOST_PEERS + 1))
    assert flows_scope((), many).flows == (FlowFilter(),)
    assert flows_scope((), many[:-1]).flows == many[:-1]
