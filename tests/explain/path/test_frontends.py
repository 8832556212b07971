"""Frontends as each place looks them up, in both IP versions, and backends that are no pods of the
Service's own: other clusters', Envoy's, the client's own."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, first_lookup
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium import Frontend
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import SCTP, TCP
from kubectl_ebpfnet.parse.cilium import lb
from tests.explain.path.changed import Change, ask, changed, dropped_at, without
from tests.explain.path.test_no_endpoints import (
    CT,
    LB,
    LISTED,
    SERVICES,
    UNTRACKED,
    WEB,
    lines_without,
    objects,
    unlisted,
)
from tests.explain.path.test_proxy import listeners
from tests.explain.path.variants import edit

NATIVE = "../features/native-egw-socklb/agent.zip"
"""Socket load-balancing in pods, too."""
IPCACHE = "cilium-dbg bpf ipcache list"
SIX = """\
[fd00:97::10]:80/TCP (0)      [::]:0 (60) (0) [ClusterIP, non-routable]
[fd00:97::10]:80/TCP (1)      [fd00:44::5]:8080/TCP (60) (1)
[::]:30945/TCP (0)            [::]:0 (61) (0) [NodePort, non-routable]
[::]:30945/TCP (1)            [fd00:44::5]:8080/TCP (61) (1)
[fd00:7::12]:30945/TCP (0)    [::]:0 (62) (0) [NodePort, Local, two-scopes]
[fd00:7::12]:30945/TCP/i (0)  [::]:0 (63) (0) [NodePort, Local, two-scopes]
[fd00:7::12]:30945/TCP/i (1)  [fd00:44::5]:8080/TCP (63) (1)
[fd00:9::250]:80/TCP (0)      [::]:0 (64) (0) [ExternalIPs]
[fd00:9::250]:80/TCP (1)      [fd00:44::5]:8080/TCP (64) (1)
"""


def six() -> Bundle:
    """node2 with frontends of IPv6, and its own address and node1's in the ipcache."""
    rows = (
        "fd00:7::12/128   identity=1 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
        "fd00:7::11/128   identity=6 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
    )
    return changed(
        SERVICES,
        edit("node2", LB, lambda text: text + SIX),
        edit("node2", IPCACHE, lambda text: text + rows),
    )


@pytest.mark.parametrize(
    ("address", "port", "at", "rev_nat"),
    [
        ("fd00:97::10", 80, Lookup.POD, 60),
        ("fd00:97::10", 80, Lookup.POD_SOCKET, 60),
        ("fd00:7::11", 30945, Lookup.POD, None),  # another node's: balanced there
        ("fd00:7::11", 30945, Lookup.POD_SOCKET, 61),  # by the wildcard
        ("::1", 30945, Lookup.HOST_SOCKET, 61),
        ("::1", 30945, Lookup.POD_SOCKET, None),
        ("fd00:7::12", 30945, Lookup.POD, 63),  # the internal scope
        ("fd00:7::12", 30945, Lookup.DEVICE, 62),  # the external one
        ("fd00:9::250", 80, Lookup.POD, 64),
        ("fd00:9::250", 80, Lookup.HOST_SOCKET, None),  # no address of the node
        ("fd00:9::250", 80, Lookup.DEVICE, 64),
    ],
)
def test_a_frontend_of_ipv6(address: str, port: int, at: Lookup, rev_nat: int | None) -> None:
    found = find(ClusterView(six()), "node2", ip_address(address), port, TCP, at)
    assert (found.rev_nat if found is not None else None) == rev_nat


def test_sctp_is_left_to_the_program_at_the_device() -> None:
    node = ClusterView(changed(NATIVE)).node("node2")
    assert first_lookup(node, False, TCP) is Lookup.POD_SOCKET
    assert first_lookup(node, False, SCTP) is Lookup.POD


def settings(**more: str) -> Change:
    """Settings of Cilium, `-` for `_`."""

    def add(text: str) -> str:
        document = json.loads(text)
        document["data"].update({key.replace("_", "-"): value for key, value in more.items()})
        return json.dumps(document)

    return edit("api", "get configmaps -n kube-system cilium-config", add)


def test_an_external_ip_is_balanced_at_the_device_where_l7_load_balancing_is_on() -> None:
    bundle = changed(
        NATIVE, settings(enable_envoy_config="true"), edit("node2", CT, lines_without("250"))
    )
    path = ask(bundle, "client", "172.31.7.250:80")
    passed, balanced = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert "is not translated" in passed.summary
    assert re.search(r"svc default/ext → \S+ at lxc\w+, packet by packet", balanced.summary)
    assert path.verdict.let_through


def test_whether_the_device_balances_is_open_without_settings() -> None:
    bundle = changed(
        NATIVE, without("", "get configmaps -n kube-system cilium-config"),
        edit("node2", CT, lines_without("250")),
    )  # fmt: skip
    path = ask(bundle, "client", "172.31.7.250:80")
    assert path.verdict == "unknown"
    assert "enable-envoy-config" in path.cause


# --- backends that are not the Service's own ------------------------------------------------------


def other_clusters(text: str) -> str:
    return text.replace("10.44.0.5:8080/TCP (5) (1)", "10.200.3.7:8080/TCP (5) (1)")


def mesh(*changes: Change) -> Bundle:
    row = (
        "10.200.3.7/32   identity=131073 encryptkey=0 tunnelendpoint=192.168.9.4 flags=hastunnel\n"
    )
    return changed(
        SERVICES, edit("node2", LB, other_clusters), UNTRACKED, edit("node2", LISTED, unlisted),
        edit("node2", IPCACHE, lambda text: text + row), *changes,
    )  # fmt: skip


def test_a_backend_of_another_cluster_is_not_stale() -> None:
    """Without the annotation too: Services of the multi-cluster API have none."""
    path = ask(mesh(), "client", "svc/web")
    assert path.verdict == "leaves"
    assert "in the tunnel to 192.168.9.4, a node of cluster 2 of the clustermesh" in path.reason
    assert not [one for one in path.findings if one.severity == "error"]


def test_the_same_identity_in_the_own_cluster_is_stale() -> None:
    own = edit("node2", IPCACHE, lambda text: text.replace("identity=131073", "identity=28122"))
    path = ask(mesh(own), "client", "svc/web")
    assert [one for one in path.findings if "still has a backend" in one.title]


GATEWAY = "reports/l7lb-called-no-backend"


def test_an_l7_load_balancer_whose_envoy_listens() -> None:
    path = ask(changed(GATEWAY, more=(listeners("node-a", 18133),)), "client", "203.0.113.50:80")
    assert path.verdict == "unknown"
    assert path.hops[-1].summary == "Envoy listens at 127.0.0.1:18133"


def test_an_l7_load_balancer_without_an_envoy() -> None:
    path = ask(changed(GATEWAY, more=(listeners("node-a", 9901),)), "client", "203.0.113.50:80")
    assert dropped_at(path).kind == "socket"
    assert "nothing listens at 127.0.0.1:18133 of node-a" in path.cause


def test_a_pod_that_is_its_own_backend_over_ipv4() -> None:
    path = ask(changed(SERVICES), "ws2", "svc/close")
    (hop,) = [hop for hop in path.hops if hop.kind == "nat"]
    assert "the source becomes 169.254.42.1" in hop.summary
    assert path.answer is not None
    assert path.answer.state == "returns"
    assert not [hop for hop in path.hops if hop.kind == "policy"]


# --- what comes in by a device --------------------------------------------------------------------


def test_what_every_other_port_of_an_address_leads_to() -> None:
    """Cilium's row of port 0 drops at the device, and leaves what is inside alone."""
    row = "172.31.7.243:0/ANY (0)    0.0.0.0:0 (0) (0) [LoadBalancer, non-routable]\n"
    bundle = changed(SERVICES, *(edit(n, LB, lambda text: text + row) for n in ("node1", "node2")))
    path = ask(bundle, "172.31.7.200", "172.31.7.243:81")
    assert path.verdict == "dropped"
    assert "Service backend not found" in path.reason
    assert path.cause == "no Service serves port 81/TCP of 172.31.7.243"


def test_a_cluster_ip_from_outside() -> None:
    path = ask(changed(SERVICES), "172.31.7.200", f"{WEB}:80")
    assert path.verdict in ("dropped", "unknown")
    assert "svc default/web" in path.reason


# --- what versions print --------------------------------------------------------------------------


def test_a_backend_with_the_id_of_its_cluster() -> None:
    text = (
        "SERVICE ADDRESS        BACKEND ADDRESS (REVNAT_ID) (SLOT)\n"
        "10.96.0.9:80/TCP (0)   0.0.0.0:0 (7) (0) [ClusterIP, non-routable]\n"
        "10.96.0.9:80/TCP (1)   10.200.3.7@2:8080/TCP (7) (1)\n"
    )
    (found,) = lb.frontends(text.encode())
    assert isinstance(found, Frontend)
    assert [str(backend.address) for backend in found.backends] == ["10.200.3.7"]


@pytest.mark.parametrize(
    ("destination", "why"),
    [
        ("10.44.1.184:30945", "it is a node port of svc default/web-np, not translated"),
        ("172.31.7.12:9090", "hostPort 9090/TCP is of pod default/hp, which runs on node1"),
    ],
)
def test_no_listener_is_presumed_at_a_port_that_leads_elsewhere(destination: str, why: str) -> None:
    path = ask(changed(SERVICES), "ws2", destination)
    assert path.verdict == "unknown"
    assert why in path.cause


def test_a_port_of_a_host_network_pod_is_listened_at_by_it() -> None:
    def shared(item: Any) -> None:
        item["spec"]["hostNetwork"] = True
        item["spec"]["nodeName"] = "node2"

    path = ask(changed(SERVICES, objects("pods", "hp", shared)), "ws2", "172.31.7.12:9090")
    assert path.verdict == "reachable"
