"""What strangers say in place of a number never ends a run: peers, kubelets, objects, agents."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.active.lb import attempts
from kubectl_ebpfnet.cluster.agents import find_agents
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.clock import ServerClock
from kubectl_ebpfnet.cluster.exec.protocol import exit_code_of
from kubectl_ebpfnet.cluster.nodepods.leftovers import leftovers
from kubectl_ebpfnet.collect.ask.node_pod import AnswerStream
from kubectl_ebpfnet.errors import ExecError, ParseError
from kubectl_ebpfnet.explain.doctor.nodes import needs_create
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.probe import How, ProbeTarget, TargetKind
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.parse import kube

ADDRESS = ip_address("10.0.0.1")
HOSTILE = st.text(max_size=9) | st.sampled_from(
    ["²", "٣", "5" * 5000, "9" * 41, "-1", "0x", "1e999", "NaN", "Infinity", "1_0", "10.0.0.1", ""]
)
OBJECTS = HOSTILE | st.integers() | st.floats() | st.none() | st.lists(HOSTILE, max_size=2)


def sent_and(answer: str) -> tuple[Any, attempts.SentAttempt]:
    """A bundle in which a peer gave this answer, and the attempt that it answers."""
    target = ProbeTarget(TargetKind.INGRESS, ADDRESS, 4, 80, TCP)
    probe = attempts.probe_of(ADDRESS, 80, http="/clientip")
    sent = attempts.SentAttempt(target, "n1", "n2", How.NEXT_HOP, ADDRESS, 80, probe=probe)
    fact = ConnectAttempt("connected", "", 0.001, ADDRESS, 4711, "eth0", answer)
    record = Record(1, node_place("n2"), probe.node_argv, 0, InMemory(codec.line_of(fact)))
    return bundle_of([record]), sent


@given(HOSTILE, HOSTILE)
def test_the_client_that_a_body_names(address: str, port: str) -> None:
    for body in (f"{address}:{port}", f"10.0.0.1:{port}", f"[{address}]:{port}"):
        bundle, sent = sent_and(f"HTTP/1.1 200 OK\r\n\r\n{body}")
        attempts.read_attempt(bundle, sent)


@pytest.mark.parametrize("port", ["²", "9" * 5000, "70000", "-1"])
def test_an_address_with_a_port_that_is_none(port: str) -> None:
    found = attempts.read_attempt(*sent_and(f"HTTP/1.1 200 OK\r\n\r\n10.0.0.1:{port}"))
    assert (found.source_seen, found.source_seen_port) == (ADDRESS, None)


@given(HOSTILE)
def test_the_count_of_a_health_check(count: str) -> None:
    bundle, sent = sent_and(f'HTTP/1.1 200 OK\r\n\r\n{{"localEndpoints": {count}}}')
    found = attempts.read_health_check(bundle, replace(sent))
    assert found is not None
    assert found.local_endpoints is None or found.local_endpoints < 10**9


def api_with(items: list[dict[str, Any]]) -> Api:
    """An API that lists these objects, whatever is listed."""
    listed = {"list": lambda *_, **__: items, "pods": lambda *_, **__: items}
    return cast(Api, SimpleNamespace(session=SimpleNamespace(clock=ServerClock()), **listed))


@given(OBJECTS, OBJECTS)
def test_the_notes_of_what_runs_left(lifetime: Any, created: Any) -> None:
    notes = {"ebpfnet.dev/lifetime-seconds": lifetime}
    labels = {"ebpfnet.dev/run": "0a1b2c3d"}
    metadata = {
        "name": "ebpfnet-0a1b2c3d", "namespace": "x", "labels": labels, "annotations": notes,
        "creationTimestamp": created,
    }  # fmt: skip
    for time in (created, "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59"):
        found = leftovers(api_with([{"metadata": {**metadata, "creationTimestamp": time}}]))
        assert found


@given(OBJECTS)
def test_restarts_of_an_agent(count: Any) -> None:
    statuses = [{"name": "cilium-agent", "restartCount": count}]
    pod = {
        "metadata": {"name": "cilium-1", "namespace": "kube-system"},
        "spec": {"nodeName": "n1", "containers": [{"name": "cilium-agent"}]},
        "status": {"containerStatuses": statuses},
    }
    assert find_agents(api_with([pod]))["n1"].statuses[0].restarts >= 0


@given(st.lists(OBJECTS, max_size=3))
def test_addresses_of_a_pod(words: list[Any]) -> None:
    kube.pod({"status": {"podIPs": [{"ip": word} for word in words]}})


@given(HOSTILE)
def test_versions(text: str) -> None:
    needs_create(f"v1.{text}")
    needs_create(f"{text}.{text}")


@pytest.mark.parametrize(
    "value", ["9" * 5000, "1e999", "NaN", "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900]
)
def test_numbers_and_nests_of_answers(value: str) -> None:
    with pytest.raises(ParseError):
        kube.objects(f'{{"kind": "Pod", "metadata": {{"x": {value}}}}}'.encode())
    cause = f'{{"reason": "ExitCode", "message": {value}}}'
    status = f'{{"reason": "NonZeroExitCode", "details": {{"causes": [{cause}]}}}}'
    with pytest.raises(ExecError):
        exit_code_of(status.encode())
    stream = AnswerStream()
    stream.feed(f'{{"protocol": {value}}}\n'.encode())
    assert "does not speak" in stream.problem


@given(HOSTILE)
def test_exit_codes(text: str) -> None:
    cause = {"reason": "ExitCode", "message": text}
    status = {"reason": "NonZeroExitCode", "details": {"causes": [cause]}}
    try:
        exit_code_of(json.dumps(status).encode())
    except ExecError:
        return
