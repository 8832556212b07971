"""The state folder of Cilium's agent, as its source writes it (pkg/endpoint/bpf.go)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import EndpointState
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium.endpoint_states import states

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
    assert list(states(ASKED, tmp_path)) == [
        EndpointState(12, False, False),
        EndpointState(13, False, None),
        EndpointState(731, True, True),
    ]


def test_a_node_without_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="/var/run/cilium/state"):
        list(states(ASKED, tmp_path / "state"))
