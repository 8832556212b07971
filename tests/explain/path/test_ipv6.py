"""What is said of faults on a cluster of IPv4 is said of the same faults on one of IPv6, which is
made of it (ipv6.py): the verdict, and the findings with the other addresses."""

from __future__ import annotations

import re

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.doctor.report import examine
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.path import Path
from tests.explain.path import test_cilium_behind as behind
from tests.explain.path import test_map_against_api as api
from tests.explain.path import test_owners as owners
from tests.explain.path import test_tunnel_devices as devices
from tests.explain.path import test_tunnel_end as tunnel_end
from tests.explain.path import test_unnamed_backend as unnamed
from tests.explain.path.changed import Change, ask, changed, say
from tests.explain.path.ipv6 import addresses_in, made, text

RECORDED = tunnel_end.RECORDED
RANGES = "../features/probe-lb-source-ranges/agent.zip"
NODES, CT = ("node1", "node2"), "cilium-dbg bpf ct list global -d"
WEB = owners.WEB_ADDRESS
HERE, AWAY = "172.31.7.12", "172.31.7.11"
FAULTS: dict[str, tuple[Change, ...]] = {
    "healthy": (),
    "a pod is gone": (owners.objects(owners.PODS, owners.without(owners.WEB)),),
    "a pod is gone, its row as well": (
        owners.objects(owners.PODS, owners.without(owners.WEB)),
        owners.edit("node1", owners.LXC, owners.without_row),
        owners.edit("node1", owners.ENDPOINT_LIST, owners.unlisted),
    ),
    "two pods have one address": (owners.objects(owners.PODS, owners.twin),),
    "two nodes have one address": (
        owners.objects(owners.NODES, owners.node_address("node2", AWAY)),
    ),
    "prefixes overlap": (
        owners.objects(owners.CILIUM_NODES, owners.prefix("node1", "10.44.0.0/16")),
    ),
    "a prefix has a Service's address": (
        owners.objects(owners.CILIUM_NODES, owners.prefix("node1", "10.97.0.0/16")),
    ),
    "a CiliumNode has another address": (
        owners.objects(owners.NODES, owners.node_address("node2", "172.31.7.77")),
    ),
    "a tunnel to nobody": (tunnel_end.behind("node2", f"{WEB}/32", AWAY, "172.31.7.99"),),
    "a pod of another node taken for the own": (
        tunnel_end.behind("node2", f"{WEB}/32", AWAY, HERE),
    ),
    "a tunnel device of somebody else": (devices.device("node2", devices.not_external),),
    "the slices are empty": (behind.json_edit("api", behind.SLICES, behind.emptied),),
    "a backend is not ready": (behind.endpoints("web", **behind.NOT_READY),),
    "a backend has a port that nobody names": (unnamed.maps(":8080", ":9999"),),
    "a backend is another pod": (unnamed.maps(WEB, "10.44.0.132"),),
    "the API server has the pod elsewhere": (api.runs_on("tunnel", "node2"),),
    "a row leads elsewhere, and the endpoint is gone": (
        api.leads("tunnel", "node1", HERE),
        *api.without_endpoint("tunnel"),
    ),
    "the ipcache lacks a pod": (
        owners.edit(
            "node2",
            tunnel_end.IPCACHE,
            lambda said: "".join(r for r in said.splitlines(True) if not r.startswith(f"{WEB}/")),
        ),
    ),
}


def said(path: Path) -> set[tuple[str, str]]:
    """Findings, without those of what 20 bytes more of an outer header leave."""
    silent = " bytes are lost in silence"
    return {(str(f.severity), f.title) for f in path.findings if silent not in f.title}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_as_in_ipv4(fault: str) -> None:
    unseen = (say(node, CT, "") for node in NODES)
    changes = (*unseen, *FAULTS[fault])
    four = ask(changed(RECORDED, *changes), "client", "svc/web")
    six = ask(changed(RECORDED, *changes, made), "client", "svc/web")
    assert any(":" in str(hop.packet.flow.destination) for hop in six.hops)
    assert six.verdict == four.verdict, (six.reason, four.reason)
    assert said(six) == {(severity, addresses_in(title)) for severity, title in said(four)}
    assert re.sub(r"; .*", "", six.cause) == re.sub(r"; .*", "", addresses_in(four.cause))


@pytest.mark.parametrize("fault", FAULTS)
def test_doctor_tells_the_same(fault: str) -> None:
    four = examine(changed(RECORDED, *FAULTS[fault]))
    six = examine(changed(RECORDED, *FAULTS[fault], made))
    assert [one.title for one in six.findings] == [addresses_in(one.title) for one in four.findings]


@pytest.mark.parametrize("service", ["243", "244"])
def test_source_ranges(service: str) -> None:
    """Of a client outside; lbsr-ok lets it in, lbsr-bad does not."""
    paths = []
    for changes, name in (((), str), ((made,), text)):
        address = name(f"172.31.7.{service}")
        to = f"[{address}]:80" if ":" in address else f"{address}:80"
        _, request = arguments.question(
            name("172.31.7.200"), to, "", "", ipv4=False, ipv6=False, via_word="node2"
        )
        paths.append(explain(request("default"), changed(RANGES, *changes)))
    four, six = paths
    assert six.verdict == four.verdict
    assert six.cause == addresses_in(four.cause)
