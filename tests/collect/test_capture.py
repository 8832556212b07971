"""A live capture of a fake cluster: complete, private, and gone when it is broken off."""

from __future__ import annotations

import os
import signal
import stat
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture import spool
from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.capture.redact.names import names_of
from kubectl_ebpfnet.capture.redact.text import NOTE
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.collect.scope import EVERYTHING
from kubectl_ebpfnet.errors import BundleError, NotFound
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import API, PlaceKind, agent_place, bundle_of, pod_place
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest
from tests.cluster.fake_api_server import ExecEnd
from tests.collect.conftest import Opened


@dataclass(frozen=True)
class Place:
    kind: str
    name: str


def path_to(kind: str, name: str, port: int) -> PathRequest:
    return PathRequest(
        source="pod/client",
        source_namespace="default",
        source_name="client",
        destination=f"{kind}/{name}",
        destination_kind=kind,
        destination_namespace="default",
        destination_name=name,
        port=port,
        protocol=TCP,
    )


def test_a_capture_answers_what_the_cluster_would(cluster: Opened, tmp_path: Path) -> None:
    session, replay = cluster("vxlan-kpr")
    talk: list[str] = []
    file = tmp_path / "x.zip"
    count = capture(
        session, [Place("pod", "client"), Place("node", "node1")], file, progress=talk.append
    )
    bundle = open_bundle(file)
    assert count == len(bundle.records)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x.zip"]
    assert {p.node for p in bundle.places(PlaceKind.AGENT)} == {"node1", "node2"}
    assert bundle.places(PlaceKind.POD) == (pod_place("default", "client"),)
    assert not any(record.line_filter for record in bundle.records)
    for node in ("node1", "node2"):
        for question in (each.fact for each in EVERYTHING.questions(agent_place(node))):
            if question is q.TC_FILTERS:
                continue  # each device has a record of its own
            said = q.best_record(bundle, agent_place(node), question)
            recorded = q.best_record(replay.bundle, agent_place(node), question)
            assert said is not None, question.name
            if recorded is not None and recorded.ok:
                assert said.stdout.read() == recorded.stdout.read()
    lists = {r.argv[1] for r in bundle.records if r.place == API and r.ok}
    assert lists >= {"pods", "nodes", "services", "endpointslices", "ciliumnodes", "configmaps"}
    for asked in (path_to("pod", "web", 8080), path_to("service", "web", 80)):
        # The recording lacks the lists of policies that the cluster had none of.
        policies = [r for r in bundle.records if "networkpolicies" in "".join(r.argv[1:2])]
        mine = explain(asked, bundle)
        theirs = explain(asked, bundle_of([*replay.bundle.records, *policies]))
        assert [h.summary for h in mine.hops] == [h.summary for h in theirs.hops]
        assert mine.verdict == theirs.verdict
    assert talk[0] == "asking the API server"
    assert talk[-1].startswith("waiting for cilium-agent on ")


def test_without_places_every_node_is_recorded(cluster: Opened, tmp_path: Path) -> None:
    session, _ = cluster("native-iptables")
    capture(session, [], tmp_path / "x.zip")
    bundle = open_bundle(tmp_path / "x.zip")
    assert {p.node for p in bundle.places(PlaceKind.AGENT)} == {"node1", "node2"}
    assert bundle.places(PlaceKind.POD) == ()


def test_secrets_of_a_pod_are_not_in_it(cluster: Opened, tmp_path: Path) -> None:
    session, replay = cluster("vxlan-kpr")
    container = replay.pod("client")["spec"]["containers"][0]
    container |= {"env": [{"name": "P", "value": "hunter2"}], "args": ["hunter2"]}
    config = replay.named("ConfigMap", "cilium-config")
    config["data"]["etcd-password"] = "hunter2"
    capture(session, [Place("pod", "client")], tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        for name in archive.namelist():
            assert b"hunter2" not in archive.read(name)
        assert any(b"routing-mode" in archive.read(name) for name in archive.namelist())


def test_redacted(cluster: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, replay = cluster("vxlan-kpr")
    # A key of ours: by chance another key makes of one address what was another's.
    monkeypatch.setattr("secrets.token_bytes", lambda n: b"k" * n)
    said: list[str] = []
    capture(session, [Place("pod", "client")], tmp_path / "x.zip", redact=True, warn=said.append)
    assert os.listdir(tmp_path) == ["x.zip"]
    bundle = open_bundle(tmp_path / "x.zip")
    assert bundle.note == NOTE
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    for word in (b"10.244.1.160", b"node2", *(n.encode() for n in names_of(replay.bundle))):
        if word not in (b"client", b"web", b"operator", b"apiserver"):  # also words of others
            assert word not in text, word
    (source,) = bundle.places(PlaceKind.POD)
    assert f"pod default/client is called {source} in it" in said
    asked = PathRequest(
        f"pod/{source.pod}", source.namespace, source.pod, "x", "address", TCP, port=80,
        destination_address=_world(bundle),
    )  # fmt: skip
    redacted = explain(asked, bundle)
    assert redacted.verdict.let_through
    assert redacted.flows


def _world(bundle: Any) -> Any:
    """What 1.1.1.1 became: the far end of the only flow to port 80 outside."""
    import ipaddress

    from kubectl_ebpfnet.parse.cilium import ct

    (agent,) = bundle.places(PlaceKind.AGENT)
    record = q.best_record(bundle, agent, q.CT)
    for line in record.stdout.read().splitlines():
        entry = ct.entry(line, 1)
        far = entry.flow.destination
        if entry and entry.flow.destination_port == 80 and not far.is_private:
            return far
    return ipaddress.ip_address("192.0.2.1")


def test_a_long_table_is_streamed_through_a_file(
    cluster: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, replay = cluster("vxlan-kpr")
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 10_000)
    made: list[Path | None] = []
    real = spool.Spooled.__init__

    def noted(self: spool.Spooled, folder: Path | None) -> None:
        made.append(folder)
        real(self, folder)

    monkeypatch.setattr(spool.Spooled, "__init__", noted)
    capture(session, [Place("node", "node2")], tmp_path / "x.zip")
    assert made
    assert set(made) == {tmp_path}
    said = q.best_record(open_bundle(tmp_path / "x.zip"), agent_place("node2"), q.CONNTRACK)
    recorded = q.best_record(replay.bundle, agent_place("node2"), q.CONNTRACK)
    assert said is not None
    assert recorded is not None
    assert said.stdout.read() == recorded.stdout.read()


def test_a_file_that_is_there_is_not_replaced_unasked(cluster: Opened, tmp_path: Path) -> None:
    session, replay = cluster("vxlan-kpr")
    file = tmp_path / "x.zip"
    file.write_text("mine")
    with pytest.raises(BundleError, match="is there already"):
        capture(session, [], file)
    assert replay.fake.seen == []  # nothing was asked in vain
    assert file.read_text() == "mine"
    capture(session, [Place("pod", "client")], file, overwrite=True)
    assert open_bundle(file).records


def test_a_place_that_is_not_there(cluster: Opened, tmp_path: Path) -> None:
    session, _ = cluster("vxlan-kpr")
    with pytest.raises(NotFound, match='pod "nobody"'):
        capture(session, [Place("pod", "nobody")], tmp_path / "x.zip")
    with pytest.raises(NotFound, match='node "nowhere"'):
        capture(session, [Place("node", "nowhere")], tmp_path / "x.zip")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("redact", [False, True])
def test_sigterm_leaves_nothing(cluster: Opened, tmp_path: Path, redact: bool) -> None:
    session, replay = cluster("vxlan-kpr")
    asked = threading.Event()

    def silent(end: ExecEnd, pod: str) -> bool:
        asked.set()
        end.wait_for_client_to_leave()
        return True

    replay.before = silent

    def end_it() -> None:
        assert asked.wait(30)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end_it)
    thread.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        capture(session, [Place("node", "node2")], tmp_path / "x.zip", redact=redact)
    thread.join()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert os.listdir(tmp_path) == []


def test_what_does_not_answer_in_time_is_done_without(cluster: Opened, tmp_path: Path) -> None:
    session, replay = cluster("vxlan-kpr")

    def silent(end: ExecEnd, pod: str) -> bool:
        if pod.startswith("cilium-"):
            end.wait_for_client_to_leave()
            return True
        return False

    replay.before = silent
    capture(session, [Place("pod", "client")], tmp_path / "x.zip", timeout=3)
    bundle = open_bundle(tmp_path / "x.zip")
    late = [r for r in bundle.records if r.place == agent_place("node2")]
    assert {r.error for r in late} == {"no answer within the 3 s that --timeout allows"}
    routes = q.best_record(bundle, pod_place("default", "client"), q.POD_ROUTES)
    assert routes is not None
    assert routes.ok
