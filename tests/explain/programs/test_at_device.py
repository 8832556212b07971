"""The programs at a device, and the names that tools give them (cilium-facts 4.1)."""

from __future__ import annotations

import json

import pytest

from kubectl_ebpfnet.explain.programs.at_device import at_device, role_of
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of


@pytest.mark.parametrize(
    "name",
    [
        "cil_from_container",
        "cil_from_container-lxc890578bef1bb",
        "cil_from_container-lxc890578bef1bb:[*fsobj]",
        "cil_from_contai",
        "bpf_lxc.o:[from-container]",
        "from-container",
    ],
)
def test_every_name_of_the_program_has_its_role(name: str) -> None:
    assert role_of(name).startswith("what leaves the pod")


@pytest.mark.parametrize(
    "name", ["", "my_filter", "cil_from_contain", "cil_from", "prog.o:[classifier]", "[*fsobj]"]
)
def test_programs_of_others_have_none(name: str) -> None:
    assert role_of(name) == ""


def test_a_link_of_another_namespace_is_not_at_the_device_of_that_number() -> None:
    """bpftool 7.5 gives the tcx link of a pod's own eth0 (2) the name of the node's device 2."""
    theirs = {"id": 7, "type": "tcx", "prog_id": 42, "devname": "eth0", "attach_type": "tcx_egress"}
    ours = {"devname": "eth0", "ifindex": 2, "kind": "clsact/egress", "name": "cil_to_netdev",
            "id": 41}  # fmt: skip
    said = {
        ("bpftool", "-j", "net", "show"): [{"xdp": [], "tc": [ours], "flow_dissector": []}],
        ("bpftool", "-j", "-f", "link", "show"): [theirs],
    }
    records = [
        Record(number, agent_place("n1"), argv, 0, InMemory(json.dumps(rows).encode()))
        for number, (argv, rows) in enumerate(said.items(), 1)
    ]
    found = at_device(ClusterView(bundle_of(records)).node("n1"), "eth0", "egress")
    assert [p.attachment.program_id for p in found.programs] == [41]
