"""A DNS name on the live way: who is asked, in which order, and what the answer says."""

from __future__ import annotations

import socket
from pathlib import Path as File
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import API, CLIENT, Bundle, agent_place, pod_place
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Path, PathRequest
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster

POD = pod_place("default", "client")
RESOLV_CONF = b"""search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""
NXDOMAIN = b"** server can't find it: NXDOMAIN\n"
SILENT = b";; connection timed out; no servers could be reached\n"


def named(name: str, **more: Any) -> PathRequest:
    words: dict[str, Any] = {
        "destination": name,
        "destination_kind": "name",
        "destination_name": name,
        "protocol": TCP,
        "port": 80,
    }
    return PathRequest("pod/client", "default", "client", **{**words, **more})


def asked(session: Session, request: PathRequest) -> tuple[Bundle, Path]:
    by_pod, bundle = looked(session, request, timeout=50)
    return bundle, explain(by_pod, bundle)


@pytest.fixture
def opened(cluster: Opened) -> tuple[Session, ReplayCluster]:
    session, replay = cluster("vxlan-kpr")
    replay.also["cat", "/etc/resolv.conf"] = RESOLV_CONF
    return session, replay


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that this machine knows."""
    known: dict[str, str] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        if host in known:
            return [(2, 1, 6, "", (known[host], 0))] * 2
        if "." in str(host) and not str(host)[0].isdigit():
            raise socket.gaierror("Name or service not known")
        return real(host, *rest, **options)

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    return known


def test_what_the_pod_says_counts(
    opened: tuple[Session, ReplayCluster], here: dict[str, str]
) -> None:
    session, replay = opened
    replay.also["getent", "ahosts", "web.test"] = b"10.96.51.4 STREAM web\n"
    here["web.test"] = "192.0.2.7"
    bundle, path = asked(session, named("web.test"))
    assert bundle.record(POD, ("getent", "ahosts", "web.test")) is not None
    assert bundle.record(CLIENT, ("resolve", "web.test")) is None
    assert bundle.record(POD, ("nslookup", "web.test.")) is None
    assert str(path.destination.address) == "10.96.51.4"
    assert path.destination.note == "web.test is 10.96.51.4, asked in pod default/client"
    assert bundle.at(agent_place("node1"))  # the Service's far end was found, and asked


def test_a_name_that_does_not_exist(
    opened: tuple[Session, ReplayCluster], here: dict[str, str]
) -> None:
    session, replay = opened
    here["nosuch.test"] = "192.0.2.7"
    replay.fails["getent", "ahosts", "nosuch.test"] = (b"", 2)
    for domain in ("default.svc.cluster.local", "svc.cluster.local", "cluster.local"):
        replay.fails["nslookup", f"nosuch.test.{domain}."] = (NXDOMAIN, 1)
    replay.fails["nslookup", "nosuch.test."] = (NXDOMAIN, 1)
    bundle, path = asked(session, named("nosuch.test"))
    assert path.verdict == "unknown"
    assert path.reason == (
        "nosuch.test does not exist: nameserver 10.96.0.10 of pod default/client says NXDOMAIN for "
        "nosuch.test.default.svc.cluster.local, nosuch.test.svc.cluster.local, "
        "nosuch.test.cluster.local, nosuch.test"
    )
    assert bundle.record(CLIENT, ("resolve", "nosuch.test")) is None
    assert path.fix is not None
    assert "Check the name" in path.fix.text


def test_a_nameserver_that_does_not_answer_is_walked_to(
    opened: tuple[Session, ReplayCluster], here: dict[str, str]
) -> None:
    session, replay = opened
    replay.also["cat", "/etc/resolv.conf"] = RESOLV_CONF.replace(b"10.96.0.10", b"10.96.51.4")
    replay.fails["getent", "ahosts", "db.test"] = (b"", 2)
    replay.fails["nslookup", "db.test.default.svc.cluster.local."] = (SILENT, 1)
    bundle, path = asked(session, named("db.test"))
    assert path.verdict == "unknown"
    assert "nameserver 10.96.51.4 of pod default/client did not answer; DNS: " in path.reason
    assert path.cause.startswith("DNS: 10.96.51.4:53/UDP of svc default/web: ")
    assert path.fix is not None
    assert path.fix.command == (
        "kubectl ebpfnet path -n default pod/client svc/web:53 --protocol udp "
        "--to-namespace default"
    )
    assert bundle.at(agent_place("node1"))


@pytest.mark.parametrize("name", ["web", "web.default", "web.default.svc.cluster.local"])
def test_a_service_where_nothing_runs_in_the_pod(
    opened: tuple[Session, ReplayCluster], here: dict[str, str], name: str
) -> None:
    session, replay = opened
    replay.images["client"] = set()
    bundle, path = asked(session, named(name))
    assert bundle.record(API, ("get", "services", "-n", "default", "web")) is not None
    assert str(path.destination.address) == "10.96.51.4"
    assert "cluster DNS calls svc default/web so" in path.destination.note


def test_this_machine_is_asked_last(
    opened: tuple[Session, ReplayCluster], here: dict[str, str]
) -> None:
    session, replay = opened
    replay.images["client"] = set()
    here["out.test"] = "1.1.1.1"
    bundle, path = asked(session, named("out.test"))
    assert bundle.record(CLIENT, ("resolve", "out.test")) is not None
    assert str(path.destination.address) == "1.1.1.1"
    assert "out.test is 1.1.1.1 to this machine, which may differ in the pod" in (
        path.destination.note
    )


def test_a_second_address_of_a_pod_is_found(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    address = "fd00:10:244::87"
    replay.pod("web")["status"]["podIPs"].append({"ip": address})
    replay.pod("client")["status"]["podIPs"].append({"ip": "fd00:10:244:1::1"})
    for name in ("node1", "node2"):
        node = replay.named("Node", name)
        node["status"]["addresses"].append({"type": "InternalIP", "address": f"fd00::{name[-1]}"})
    from ipaddress import ip_address

    request = PathRequest(
        "pod/client", "default", "client", address, "address", TCP,
        destination_address=ip_address(address), port=8080,
    )  # fmt: skip
    bundle, path = asked(session, request)
    assert "the address of pod default/web" in path.destination.note
    assert path.destination.node == "node1"
    assert bundle.at(agent_place("node1"))
    of_web = PathRequest(
        "pod/client", "default", "client", "pod/web", "pod", TCP, "default", "web", port=8080,
        ip_version=6,
    )  # fmt: skip
    _, path = asked(session, of_web)
    assert str(path.destination.address) == address
    assert str(path.source.address) == "fd00:10:244:1::1"


def test_a_capture_has_what_a_name_was(
    opened: tuple[Session, ReplayCluster], here: dict[str, str], tmp_path: File
) -> None:
    session, replay = opened
    replay.also["getent", "ahosts", "web.test"] = b"10.96.51.4 STREAM web\n"
    replay.fails["getent", "ahosts", "db.test"] = (b"", 2)
    replay.fails["nslookup", "db.test.default.svc.cluster.local."] = (SILENT, 1)
    client = arguments.pod_or_node("pod/client", "capture")
    for name, answer in (("web.test", "reachable"), ("db.test", "unknown")):
        live = asked(session, named(name))[1]
        to = [arguments.destination(f"{name}:80")]
        file = tmp_path / f"{name}.zip"
        capture(session, [client], file, destinations=to, timeout=50)
        kept = explain(named(name), open_bundle(file))
        assert (kept.verdict, kept.destination) == (live.verdict, live.destination)
        assert kept.cause == live.cause
        assert kept.verdict in (answer, "delivered")
    with pytest.raises(UsageError, match="only a pod knows what a name is"):
        capture(session, [], tmp_path / "x.zip", destinations=to, timeout=50)
