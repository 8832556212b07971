"""Four times the endpoints of a node are about four times the work, not sixteen."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path.stages.forward import endpoint_evidence
from kubectl_ebpfnet.explain.programs.listing import of_node
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, agent_place, bundle_of

AT_MOST = 6.0


def bundle(count: int) -> Bundle:
    """A node with so many endpoints, each with a device, a route and a program."""
    numbers = range(count)
    said: dict[str, Any] = {
        "cilium-dbg endpoint list -o json": [
            {
                "id": n,
                "status": {
                    "networking": {
                        "addressing": [{"ipv4": f"10.0.{n >> 8}.{n & 255}"}],
                        "interface-name": f"lxc{n}",
                    }
                },
            }
            for n in numbers
        ],
        "ip -j -d link": [{"ifindex": n + 1, "ifname": f"lxc{n}"} for n in numbers],
        "ip -j route show table all": [
            {"dst": f"10.0.{n >> 8}.{n & 255}", "dev": f"lxc{n}"} for n in numbers
        ],
        "bpftool -j net show": [
            {
                "xdp": [],
                "tc": [
                    {"devname": f"lxc{n}", "kind": "clsact/ingress", "name": "x", "id": n}
                    for n in numbers
                ],
            }
        ],
        "bpftool -j prog show": [{"id": n, "type": "sched_cls", "name": "xy"} for n in numbers],
    }
    lists = [
        Record(
            0, agent_place("n1"), tuple(command.split()), 0, InMemory(json.dumps(value).encode())
        )
        for command, value in said.items()
    ]
    pins = "/sys/fs/bpf/cilium:\ndevices\n" + "".join(
        f"\n/sys/fs/bpf/cilium/endpoints/{n + count}/links:\ncil_from_container\n" for n in numbers
    )
    shown = Record(0, agent_place("n1"), ("ls", "-R", "/sys/fs/bpf"), 0, InMemory(pins.encode()))
    return bundle_of([*lists, shown])


def endpoints(whole: Bundle) -> int:
    """Find and cite every endpoint and every route; return how many."""
    node = ClusterView(whole).node("n1")
    cited = 0
    for route in node[q.ROUTES].facts:
        found = node.local_endpoint(ip_address(route.destination.network_address))
        assert found is not None
        assert f"lxc{found.id}" in endpoint_evidence(node, found)[0].excerpt[0]
        assert f"lxc{found.id}" in cite.of(node[q.ROUTES].record, route.span)[0].excerpt[0]
        assert node.link(found.interface) is not None
        cited += 1
    return cited


def programs(whole: Bundle) -> int:
    """List and cite every program; return how many."""
    found = of_node("n1", whole).programs
    assert all(len(program.evidence) == 2 for program in found)
    return len(found)


def calls(work: Callable[[], object]) -> int:
    """How many functions it calls, of Python and of C."""
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("work", [endpoints, programs])
def test_four_times_the_endpoints_are_four_times_the_work(work: Callable[[Bundle], int]) -> None:
    few, many = bundle(100), bundle(400)
    assert (work(few), work(many)) == (100, 400)
    cite._document.cache_clear()
    assert calls(lambda: work(many)) / calls(lambda: work(few)) <= AT_MOST


def test_a_record_is_parsed_once_for_all_its_citations(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    read = cite.json_value
    monkeypatch.setattr(cite, "json_value", lambda data, of: parsed.append(of) or read(data, of))
    cite._document.cache_clear()
    assert endpoints(bundle(50)) == 50
    assert len(parsed) == 2
