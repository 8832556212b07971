"""Every program that acts on a pod or a node, in the order in which they run."""

from __future__ import annotations

import dataclasses

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.programs import listing as program_list
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.programs import ProgramList
from tests.explain.path.node_pod_bundle import NODE, POD, answer, bundle, pod_object, refused

RECORDED = "tests/scenarios/vxlan-kpr"


def rows(found: ProgramList) -> list[tuple[str, str, int, str]]:
    return [(r.attachment.device, r.attachment.hook, r.order, r.name) for r in found.programs]


NODE_FACTS = (
    answer(NODE, "links", Link(1, "lo"), Link(2, "eth0"), Link(9, "lxc1", peer_index=4)),
    answer(
        NODE,
        "attachments",
        Attachment("xdp", "eth0", "cil_xdp_entry", 1),
        Attachment("tcx/ingress", "eth0", "theirs", 2, link_id=7),
        Attachment("clsact/ingress", "eth0", "cil_from_netdev", 3, priority=1),
        Attachment("clsact/egress", "eth0", "cil_to_netdev", 4, priority=1),
        Attachment("tcx/ingress", "lxc1", "cil_from_contai", 5),
        Attachment("cgroup_inet4_connect", "", "cil_sock4_connect", 6, cgroup="/"),
        Attachment("sk_lookup", "", "steer", 8),
    ),
    answer(
        NODE,
        "programs",
        Program(5, "cil_from_container", "sched_cls", "aa" * 8, 1_000, (3, 4), 10, 5_000),
    ),
)


def test_a_node_has_all_of_them_in_order() -> None:
    found = program_list.of_node("n1", bundle(*NODE_FACTS))
    assert rows(found) == [
        ("eth0", "xdp", 1, "cil_xdp_entry"),
        ("eth0", "tcx/ingress", 2, "theirs"),
        ("eth0", "clsact/ingress", 3, "cil_from_netdev"),
        ("eth0", "clsact/egress", 1, "cil_to_netdev"),
        ("lxc1", "tcx/ingress", 1, "cil_from_container"),
        ("", "cgroup_inet4_connect", 1, "cil_sock4_connect"),
        ("", "sk_lookup", 1, "steer"),
    ]
    assert found.missing == ()
    assert found.known
    roles = {row.name: row.role for row in found.programs}
    assert roles["theirs"] == roles["steer"] == ""
    assert "leaves the pod" in roles["cil_from_container"]
    assert "connect()" in roles["cil_sock4_connect"]


def test_a_pod_has_its_own_and_those_of_its_host_side() -> None:
    own = (
        answer(POD, "links", Link(4, "eth0", "veth", peer_index=9)),
        answer(POD, "attachments", Attachment("cgroup_inet6_bind", "", "b", 9, cgroup="/pod")),
    )
    found = program_list.of_pod("shop", "cart", bundle(pod_object(), *own, *NODE_FACTS))
    assert rows(found) == [
        ("", "cgroup_inet6_bind", 1, "b"),
        ("lxc1", "tcx/ingress", 1, "cil_from_container"),
    ]
    assert [row.where for row in found.programs] == ["pod shop/cart", "node n1"]
    assert found.missing == ()


def test_what_was_not_seen_is_said() -> None:
    own = refused(POD, "attachments", "CAP_SYS_PTRACE lets the node side look")
    found = program_list.of_pod("shop", "cart", bundle(pod_object(), own, *NODE_FACTS))
    assert any("CAP_SYS_PTRACE" in said for said in found.missing)
    assert any("host side of the pod's device is not known" in said for said in found.missing)
    nothing = program_list.of_node("n2", bundle(*NODE_FACTS))
    assert nothing.programs == ()
    assert (found.known, nothing.known) == (True, False)
    assert any("nothing is recorded" in said for said in nothing.missing)


def test_a_capture_lacks_what_a_live_run_did_not_ask_for() -> None:
    records = (pod_object(), answer(POD, "links"), *NODE_FACTS)
    for found, said in (  # in words that a user can run
        (bundle_of(records), "nobody was asked for the attachments of pod shop/cart, which a node"),
        (bundle_of(records, "c.zip"), "attachments of pod shop/cart: `capture --node-access pod`"),
    ):
        assert said in program_list.of_pod("shop", "cart", found).missing[0]


def test_a_host_network_pod_has_its_nodes() -> None:
    found = program_list.of_pod("shop", "cart", bundle(pod_object(host_network=True), *NODE_FACTS))
    assert len(found.programs) == 7
    assert "shares the network namespace of node n1" in found.missing[0]


def test_out_of_what_an_agent_said() -> None:
    found = program_list.of_pod("default", "client", open_bundle(RECORDED))
    first = found.programs[0]
    assert (first.attachment.hook, first.name) == ("tcx/ingress", "cil_from_container")
    assert first.program is not None
    assert first.program.tag == "e19de17a3652e5b3"
    assert first.evidence
    assert {row.name for row in found.programs[1:]} >= {"cil_sock4_connect", "cil_sock6_sendmsg"}
    assert "asks for them" not in found.missing[0]  # a capture is asked nothing
    live = bundle_of(open_bundle(RECORDED).records)
    asked = program_list.of_pod("default", "client", live)
    assert "--node-access pod asks for them" in asked.missing[0]


def test_what_an_answer_lacks_is_told_beside_it() -> None:
    whole = NODE_FACTS[1]
    lacking = dataclasses.replace(whole, stderr=b"ask for programs: Operation not permitted")
    found = program_list.of_node("n1", bundle(NODE_FACTS[0], lacking, NODE_FACTS[2]))
    assert len(found.programs) == 7
    assert found.missing == ("some programs of node n1: ask for programs: Operation not permitted",)
