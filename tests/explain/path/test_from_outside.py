"""A client outside of a real cluster with other settings: DSR, and what nobody recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Path as Answer

SERVICES = Path(__file__).parents[2] / "features" / "services"
CLIENT = "172.31.7.200"
WAYS = pytest.mark.parametrize("way", ["agent", "pod"])
_TRACKED = ("ct list", "nat list", "conntrack", "node ct", "node nat")


def asked(bundle: Bundle, destination: str, via: str = "", source: str = CLIENT) -> Answer:
    _, request = arguments.question(
        source, destination, "", "", ipv4=False, ipv6=False, via_word=via
    )
    return explain(request("default"), bundle)


def changed(way: str, change: Callable[[Record], Record | None]) -> Bundle:
    bundle = open_bundle(SERVICES / f"{way}.zip")
    records = [change(record) for record in bundle.records]
    return bundle_of([record for record in records if record is not None], bundle.source)


def by_dsr(record: Record) -> Record | None:
    """The same cluster with DSR, whose nodes have tracked nothing yet."""
    if any(words in record.command for words in _TRACKED):
        return replace(record, stdout=InMemory(b""))
    if "cilium-config" not in record.argv:
        said = record.stdout.read() if "status" in record.command else b""
        return (
            replace(record, stdout=InMemory(said.replace(b'"SNAT"', b'"DSR"'))) if said else record
        )
    value = json.loads(record.stdout.read())
    for one in value.get("items", [value]):
        one["data"]["bpf-lb-mode"] = "dsr"
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


@WAYS
def test_with_dsr_the_backends_node_answers_by_itself(way: str) -> None:
    path = asked(changed(way, by_dsr), "172.31.7.250:80", "node2")
    assert path.verdict.let_through, path.reason
    assert any("DSR: the source stays" in hop.summary for hop in path.hops)
    assert str(path.hops[-1].packet.flow.source) == CLIENT
    assert path.answer is not None
    assert path.answer.asymmetric
    assert {hop.node for hop in path.answer.hops} == {"node1", ""}
    last = path.answer.hops[-1]
    assert (last.summary, last.packet.flow.source_port) == (
        f"client {CLIENT} sees the answer of 172.31.7.250:80", 80,
    )  # fmt: skip


def only_load_balanced(flags: bytes) -> Callable[[Record], Record | None]:
    """DSR, whose node has the entries of load-balancing alone, with these flags of the client."""

    def change(record: Record) -> Record | None:
        if "bpf ct list" not in record.command:
            return by_dsr(record)
        lines = [line for line in record.stdout.read().split(b"\n") if b" SVC " in line]
        said = b"\n".join(lines).replace(b"TxFlagsSeen=0x1b", b"TxFlagsSeen=" + flags)
        return replace(record, stdout=InMemory(said + b"\n"))

    return change


def test_with_dsr_the_entry_of_load_balancing_alone_is_no_loss() -> None:
    """The answer passes the node by; an ACK of the client shows that it came."""
    seen = asked(changed("agent", only_load_balanced(b"0x1b")), "172.31.7.250:80", "node2")
    assert seen.verdict == "reachable"
    assert seen.attempt is not None
    assert seen.attempt.outcome == "answered"
    silent = asked(changed("agent", only_load_balanced(b"0x02")), "172.31.7.250:80", "node2")
    assert silent.attempt is not None
    assert silent.attempt.text == (
        "TCP 172.31.7.200:45568 → 172.31.7.250:80 was load-balanced by node2, 69 s before the "
        "table was read, and its client sent no ACK after the SYN; with DSR its answer "
        "passes node2 by"
    )
    assert silent.verdict in ("reachable", "unknown")
    assert "lost between" not in silent.reason


def with_bgp(record: Record) -> Record:
    if "cilium-config" not in record.argv:
        return record
    value = json.loads(record.stdout.read())
    for one in value.get("items", [value]):
        one["data"]["enable-bgp-control-plane"] = "true"
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


def test_what_leads_clients_to_a_services_address_is_presumed() -> None:
    """No record shows it, unless a lease does; --via says it."""
    led = "that clients outside are led to 172.31.7.242 of svc default/web-lb-cluster ("
    plain = asked(changed("agent", lambda record: record), "svc/web-lb-cluster")
    assert [one for one in plain.presumed if one.startswith(led)]
    by_bgp = asked(changed("agent", with_bgp), "svc/web-lb-cluster")
    assert [one for one in by_bgp.presumed if one.startswith(f"{led}by BGP: which CiliumBGPAdv")]
    for destination, via in (("svc/web-lb-cluster", "node2"), ("node/node1", ""), ("pod/ws1", "")):
        path = asked(changed("agent", with_bgp), destination, via)
        assert not [one for one in path.presumed if "clients outside are led" in one]


@WAYS
def test_an_entry_of_which_nothing_was_recorded_is_unknown(way: str) -> None:
    """The other's verdict stands beside it; that of all is no more than that."""
    path = asked(changed(way, lambda r: None if r.place.node == "node2" else r), "svc/web-np")
    assert path.outside is not None
    verdicts = {entry.node: entry.path.verdict.value for entry in path.outside.entries}
    assert verdicts == {"node1": "reachable", "node2": "unknown"}
    assert path.verdict == "unknown"
    assert "unknown by node2 (nothing is known of node2" in path.reason
    assert path.reason.endswith("reachable by node1")


@WAYS
def test_without_any_record_of_a_node_nothing_is_said(way: str) -> None:
    path = asked(changed(way, lambda r: None if r.place.node else r), "172.31.7.250:80")
    assert path.verdict == "unknown"
    assert not [f for f in path.findings if f.severity == "error"]


def accelerated(acceleration: str, *, read: bool, drops: str) -> Callable[[Record], Record | None]:
    """node2 balances by XDP as its agent says, whose programs were read or not, and what a node
    sends or gets itself is dropped; nothing is tracked."""

    def change(record: Record) -> Record | None:
        said = record.stdout.read()
        if any(words in record.command for words in _TRACKED):
            return replace(record, stdout=InMemory(b""))
        if record.place.node == drops and "iptables-save" in record.command:
            for chain in (b":INPUT", b":OUTPUT"):
                said = said.replace(chain + b" ACCEPT", chain + b" DROP")
            return replace(record, stdout=InMemory(said))
        if record.place.node != "node2":
            return record
        if record.command == "cilium-dbg status -o json":
            value = json.loads(said)
            features = value["kube-proxy-replacement"]["features"]
            features["nodePort"]["acceleration"] = acceleration
            return replace(record, stdout=InMemory(json.dumps(value).encode()))
        if record.command == "bpftool -j net show" and not read:
            return replace(record, stdout=InMemory(), exit_code=1)
        return record

    return change


@pytest.mark.parametrize(
    ("acceleration", "read", "drops", "verdict"),
    [
        ("Disabled", False, "node2", "dropped"),
        ("Native", True, "node2", "dropped"),
        ("Native", False, "node2", "unknown"),
        ("Native", False, "node1", "dropped"),  # both ways lead to the backend's node
        ("Native", False, "", "reachable"),
    ],
)
def test_xdp_that_was_not_read_may_pass_a_drop_by(
    acceleration: str, read: bool, drops: str, verdict: str
) -> None:
    change = accelerated(acceleration, read=read, drops=drops)
    path = asked(changed("agent", change), "172.31.7.250:80", "node2")
    assert path.verdict == verdict, path.reason
    if verdict == "unknown":
        assert "whether cil_xdp_entry at eth0 of node2 balances it" in path.reason
