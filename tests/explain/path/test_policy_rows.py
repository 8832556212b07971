"""Of a policy map, a node pod sends some identities: what it left out decides nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.explain.path import frontend_lookup
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, Search
from kubectl_ebpfnet.explain.path.policy import Remote
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Frontend, IpcacheEntry, LocalEndpoint, PolicyEntry
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of, node_place
from kubectl_ebpfnet.model.protocol import codec

PEER, OTHER = ip_address("10.0.0.9"), ip_address("10.0.0.77")
IN_MAP = PolicyEntry(11, False, "egress", 7777, 6, (80, 80))


def answer(argv: tuple[str, ...], *facts: object, left_out: int = 0) -> Record:
    text = b"".join(map(codec.line_of, facts))
    filters = (str(PEER),) if left_out else ()
    return Record(
        0, node_place("n"), argv, 0, InMemory(text), line_filter=filters, left_out=left_out
    )


def node(*records: Record) -> NodeView:
    return NodeView(bundle_of(records, "test"), "n", DatapathConfig(), None)


CACHE = answer(q.IPCACHE.node_argv, IpcacheEntry(ip_network("10.0.0.9/32"), 5000), left_out=40)
MAPS = answer(q.POLICY_MAPS.node_argv, IN_MAP, left_out=40)


@pytest.mark.parametrize(
    ("identity", "known"), [(2, True), (255, True), (5000, True), (5001, False), (None, False)]
)
def test_entries_of_reserved_identities_and_of_the_addresses_came(
    identity: int | None, known: bool
) -> None:
    view = node(CACHE, MAPS)
    remote = Remote(identity, frozenset(), OTHER)
    assert bool(policy_map.lacking(view, remote)) is not known
    assert (q.POLICY_MAPS.name in view.wanted) is not known


def test_a_map_that_came_whole_tells_about_every_identity() -> None:
    whole = answer(q.POLICY_MAPS.node_argv, IN_MAP)
    assert not policy_map.lacking(node(CACHE, whole), Remote(5001, frozenset(), OTHER))
    by_agent = replace(MAPS, place=agent_place("n"), argv=q.POLICY_MAPS.forms[0])
    printed = b'[{"EndpointID": "11", "Path": "/x", "Content": []}]'
    by_agent = replace(by_agent, stdout=InMemory(printed))
    assert not policy_map.lacking(node(by_agent), Remote(5001, frozenset(), OTHER))


def test_an_end_without_an_address_and_a_capture_with_other_filters_are_no_answer() -> None:
    odd = replace(MAPS, line_filter=("no address", "fe80::1%eth0", str(PEER)))
    view = node(CACHE, odd)
    assert not policy_map.lacking(view, Remote(5000, frozenset(), PEER))
    assert policy_map.lacking(view, Remote(5001))
    assert policy_map.lacking(view, Remote(None))


def test_the_map_of_an_endpoint_with_another_address_is_asked_for() -> None:
    """An agent's list of maps, of which those of the packet's endpoints came."""
    printed = b'[{"EndpointID": "11", "Path": "/x", "Content": []}]'
    maps = replace(
        MAPS, place=agent_place("n"), argv=q.POLICY_MAPS.forms[0], stdout=InMemory(printed)
    )
    lxc = answer(
        q.ENDPOINT_MAP.node_argv, LocalEndpoint(OTHER, False, 22), LocalEndpoint(PEER, False, 11)
    )
    view = node(maps, lxc)
    assert policy_map.missing(view, 11) == ""
    assert "was not asked for" in policy_map.missing(view, 22)
    assert view.wanted[q.POLICY_MAPS.name] == OTHER
    assert policy_map.missing(node(replace(maps, line_filter=(), left_out=0), lxc), 22) != ""


class Numbers:
    """A range that is asked for numbers alone, as it answers those at once and scans for others."""

    def __contains__(self, one: object) -> bool:
        assert isinstance(one, int)
        return False


def test_an_identity_that_is_not_known_is_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (policy_map, "NODE_IDENTITIES"),
        (policy_map, "REMOTE_NODE_IDENTITIES"),
        (frontend_lookup, "_NODE_SCOPE"),
    ):
        monkeypatch.setattr(module, name, Numbers())
    wildcard = Frontend(ip_address("0.0.0.0"), 80, 6, False, "NodePort", frozenset(), 1, ())
    view = node(answer(q.LB_MAP.node_argv, wildcard))
    cluster = ClusterView(bundle_of([], "test"))
    assert policy_map.remote(cluster, view, OTHER, None) == Remote(None, frozenset(), OTHER)
    search = Search(cluster, view, OTHER, 80, 6, Lookup.POD_SOCKET)
    assert search.among(q.LB_MAP) is None
