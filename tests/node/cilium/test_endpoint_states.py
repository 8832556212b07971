"""The state folder of Cilium's agent, as its source writes it (pkg/endpoint/bpf.go)."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.errors import Incomplete, KernelError
from kubectl_ebpfnet.model.cilium import EndpointState
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import endpoint_states, fqdn
from kubectl_ebpfnet.node.cilium.endpoint_states import states
from kubectl_ebpfnet.node.cilium.fqdn import entries

FQDN = NodeRequest(1, ("ebpfnet-node", "fqdn-cache"))
ASKED = NodeRequest(1, ("ebpfnet-node", "endpoint-states"))


def header(identity: int, *lines: str) -> str:
    """A header of an endpoint with this identity."""
    head = ("/*", " * Container ID: ", f" * Identity: {identity}", " * PolicyMap: cilium_x", " */")
    return "".join(f"{line}\n" for line in (*head, *lines))


def test_audit_mode_and_the_host_endpoint(tmp_path: Path) -> None:
    files = {
        "731": header(1, "#define POLICY_AUDIT_MODE 1", "#define DEBUG 1"),
        "12": header(2550, "#undef POLICY_AUDIT_MODE"),
        "13": header(2551),
        "13_next": header(2551, "#define POLICY_AUDIT_MODE 1"),
    }
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "ep_config.h").write_text(text)
    (tmp_path / "14").mkdir()  # it has just gone
    (tmp_path / "agent-runtime-config.json").write_text("{}")
    assert [replace(each, building=None) for each in states(ASKED, tmp_path)] == [
        EndpointState(12, False, False),
        EndpointState(13, False, None),
        EndpointState(731, True, True),
    ]


def test_an_endpoint_that_is_regenerated_or_could_not_be(tmp_path: Path) -> None:
    for name in ("12", "12_next", "13", "13_next_fail", "14"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ep_config.h").write_text(header(2550))
    began = time.time() - 300
    os.utime(tmp_path / "12_next", (began, began))
    building, failed, quiet = states(ASKED, tmp_path)
    assert building.building is not None
    assert 299 <= building.building <= 320
    assert (building.failed, failed.building, quiet.building, quiet.failed) == (None,) * 4
    assert failed.failed is not None


SAVED: dict[str, Any] = {
    "SecLabel": {"id": 1},
    "Options": {"map": {"PolicyAuditMode": 1}},
    "DNSHistory": [
        {
            "fqdn": "OK.example.test.",
            "lookup-time": "2026-11-30T04:47:41.135Z",
            "expiration-time": "2026-11-30T04:48:41.135Z",
            "ttl": 60,
            "ips": ["1.1.1.1"],
        },
        {"ips": []},
    ],
}


def test_what_the_agent_saves_in_json(tmp_path: Path) -> None:
    (tmp_path / "731").mkdir()
    (tmp_path / "731" / "ep_config.h").write_text(header(1))
    (tmp_path / "731" / "ep_config.json").write_text(json.dumps(SAVED))
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "ep_config.json").write_text("{")
    assert whole_but(states(ASKED, tmp_path), "12") == [EndpointState(731, True, True)]
    (name,) = whole_but(entries(FQDN, tmp_path), "12")
    assert (name.endpoint_id, name.name, name.ttl) == (731, "ok.example.test.", 60)
    assert list(map(str, name.addresses)) == ["1.1.1.1"]
    assert name.expires is not None
    assert name.expires.minute == 48
    unread, whole = (NodeRequest(1, (*FQDN.argv, "-e", number)) for number in ("12", "731"))
    assert whole_but(entries(unread, tmp_path), "12") == []
    assert len(list(entries(whole, tmp_path))) == 1


def test_names_that_an_older_agent_saved(tmp_path: Path) -> None:
    saved = base64.b64encode(json.dumps(SAVED).encode()).decode()
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "ep_config.h").write_text(header(7, f" * CILIUM_BASE64_{saved}"))
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "ep_config.h").write_text(" * CILIUM_BASE64_!!!")
    assert [one.endpoint_id for one in whole_but(entries(FQDN, tmp_path), "8")] == [7]


def test_what_is_beyond_a_bound_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("7", "8"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ep_config.h").write_text(header(int(name)))
        (tmp_path / name / "ep_config.json").write_text(json.dumps(SAVED))
    monkeypatch.setattr(endpoint_states, "_MOST", 1)
    assert len(whole_but(states(ASKED, tmp_path), "8")) == 1
    monkeypatch.setattr(fqdn, "_MOST", 2)
    assert len(whole_but(entries(FQDN, tmp_path), "8")) == 1


def whole_but(answer: Iterator[Any], endpoint: str) -> list[Any]:
    """The facts of an answer that says at its end that it lacks an endpoint."""
    facts = []
    with pytest.raises(Incomplete, match=f"of endpoint {endpoint} was not read"):
        facts.extend(answer)  # a list keeps what came before the error
    return facts


def test_a_node_without_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="/var/run/cilium/state"):
        list(states(ASKED, tmp_path / "state"))
