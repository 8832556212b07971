"""Facts as the node side writes them, and read back: nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kernel import InterfaceAddress
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.parse import node_side

st.register_type_strategy(Span, st.just(NOWHERE))
addresses = st.ip_addresses()
ports = st.none() | st.integers(0, 65535)
flows = st.builds(Flow, st.integers(0, 255), addresses, ports, addresses, ports)
st.register_type_strategy(Flow, flows)
FLOW = Flow(TCP, ip_address("10.0.0.1"), 4711, ip_address("1.1.1.1"), 80)


@cache
def of_kind(kind: Any) -> st.SearchStrategy[Any]:
    if not dataclasses.is_dataclass(kind):
        return st.ip_addresses(v=4).map(lambda a: ip_network(f"{a}/32"))
    return st.builds(kind)


@pytest.mark.parametrize("name", sorted(NODE_FACTS))
@given(draw=st.data())
def test_every_fact_comes_back_as_it_went(name: str, draw: st.DataObject) -> None:
    facts = draw.draw(st.lists(of_kind(NODE_FACTS[name]), max_size=3))
    data = b"".join(map(codec.line_of, facts))
    assert data.count(b"\n") == len(facts)
    assert list(node_side.facts(data, ("ebpfnet-node", name))) == facts


def test_a_fact_knows_its_line() -> None:
    line = codec.line_of(InterfaceAddress("eth0", ip_address("10.0.0.1"), 24))
    read = node_side.facts(line * 2 + b"\n" + line, ("ebpfnet-node", "addresses"))
    assert [fact.span for fact in read] == [Span(1), Span(2), Span(4)]


def test_members_of_a_newer_node_side_are_passed_over() -> None:
    value = codec.plain(Backend(ip_address("10.0.0.1"), 80))
    line = json.dumps({**value, "colour": "green"}).encode()
    assert codec.fact(line, Backend) == Backend(ip_address("10.0.0.1"), 80)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b"{}", b'{"address": 3}', b'{"address": "10.0.0.300"}', b"{", b"\xff"],
)
def test_what_is_no_fact_is_an_error_with_its_line(line: bytes) -> None:
    with pytest.raises(ParseError, match="line 5"):
        node_side.fact(line, 5, ("ebpfnet-node", "lb"))


def test_a_frontend_keeps_its_backends() -> None:
    backend = Backend(ip_address("10.244.1.5"), 8080, TCP, "active", 1, 7)
    front = Frontend(
        ip_address("10.96.0.1"), 80, TCP, False, "ClusterIP", frozenset({"x"}), 3, (backend,)
    )
    (read,) = node_side.facts(codec.line_of(front), ("ebpfnet-node", "lb"))
    assert read == front


def test_a_filter_fits_in_both_orientations() -> None:
    wanted = FlowFilter(address=ip_address("1.1.1.1"), port=80, protocol=TCP)
    assert wanted.fits(FLOW)
    assert wanted.fits(FLOW.reversed())
    assert not FlowFilter(address=ip_address("1.1.1.1"), port=81).fits(FLOW)
    assert not FlowFilter(protocol=17).fits(FLOW)
    assert FlowFilter().fits(FLOW)
    assert wanted.exact is None
