"""Which nodes follow which packets, by recorded clusters."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.cli.trace_plan import Limits, plan_of_path
from kubectl_ebpfnet.explain.trace.filters import MOST_BACKENDS, backends_of, filters_of, nodes_of
from kubectl_ebpfnet.model.protocol.tracing import MOST_FILTERS
from tests.explain.path.changed import NATIVE, SCENARIOS, VXLAN, ask, opened


def test_a_pods_way_out() -> None:
    path = ask(opened(SCENARIOS / VXLAN), "pod/client", "1.1.1.1:80")
    assert path.source.node in nodes_of(path)
    sender = path.hops[0].packet.flow.source
    for node in nodes_of(path):
        found = filters_of(path, node)
        assert 0 < len(found) <= MOST_FILTERS
    ours = filters_of(path, path.source.node)
    assert {each.source for each in ours} == {sender}  # never the node's: others have it too
    assert {each.source_port for each in ours} == {None}
    assert {each.destination_port for each in ours} == {80}


@pytest.mark.parametrize("scenario", [VXLAN, NATIVE])
def test_each_backend_of_a_service_is_followed(scenario: str) -> None:
    bundle = opened(SCENARIOS / scenario)
    path = ask(bundle, "pod/client", "svc/web:80")
    backends = backends_of(path, bundle)
    assert 0 < len(backends) <= MOST_BACKENDS
    nodes = nodes_of(path, backends)
    assert {each.node for each in backends} <= set(nodes)
    ours = filters_of(path, path.source.node, backends)
    followed = {(each.destination, each.destination_port) for each in ours}
    assert {(each.address, each.port) for each in backends} <= followed
    for backend in backends:
        there = {each.destination for each in filters_of(path, backend.node, backends)}
        assert backend.address in there


def test_a_backend_is_followed_at_the_senders_node_and_its_own() -> None:
    bundle = opened(SCENARIOS / VXLAN)
    path = ask(bundle, "pod/client", "svc/web:80")
    first, *_ = backends_of(path, bundle)
    here, there, other = (
        replace(first, address=ip_address(address), node=node)
        for address, node in (
            ("10.44.9.1", path.source.node), ("10.44.9.2", "n2"), ("2001:db8::3", "n2"),
        )
    )  # fmt: skip
    all_of_them = (first, here, there, other)

    def followed(node: str) -> set[object]:
        return {each.destination for each in filters_of(path, node, all_of_them)}

    assert {here.address, there.address} <= followed(path.source.node)
    assert there.address in followed("n2")
    assert here.address not in followed("n2")
    assert other.address not in followed("n2") | followed(path.source.node)


def test_a_pod_has_no_backends() -> None:
    bundle = opened(SCENARIOS / VXLAN)
    assert backends_of(ask(bundle, "pod/client", "1.1.1.1:80"), bundle) == ()


def test_what_is_not_followed_is_said() -> None:
    bundle = opened(SCENARIOS / VXLAN)
    path = ask(bundle, "pod/client", "svc/web:80")
    first, *_ = backends_of(path, bundle)
    many = [
        replace(first, address=ip_address(f"10.44.9.{host}"), node=f"n{host}")
        for host in range(1, 13)
    ]
    assert not plan_of_path(path, Limits(1.0), backends=many[:MOST_BACKENDS]).notes
    plan = plan_of_path(path, Limits(1.0), backends=many)
    assert plan.notes[0].startswith(f"of 12 backends {MOST_BACKENDS} are followed")
    assert all(len(each.filters) <= MOST_FILTERS for each in plan.requests.values())
