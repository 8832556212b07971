"""Captures of real faults, and bug reports as small clusters, with what is right for each.

The captures are those of the records that the question needs; where one lacks what decides, the
right answer is the `unknown` that names it. In most of them a flow was answered shortly before the
fault was made: that proves nothing of a packet that is sent now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EndpointState
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    InMemory,
    Record,
    agent_place,
    bundle_of,
    node_place,
)
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol.codec import line_of
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import SCENARIOS, Change, ask, dropped_at, finding, swap
from tests.explain.path.variants import json_edit

WORLD = "1.1.1.1:80"
WAYS = ("agent", "pod")
POLICIES = "cilium-dbg bpf policy get --all -o json"
PROGRAMS = "bpftool -j prog show"
ENDPOINTS = "cilium-dbg endpoint list -o json"


def capture(name: str, *changes: Change) -> Bundle:
    """A fault's capture, or a bug report's bundle, with changes."""
    bundle = open_bundle(Path(SCENARIOS / name))
    for change in changes:
        records = [change(record) for record in bundle.records]
        assert list(bundle.records) != records
        bundle = Bundle(tuple(record for record in records if record is not None), bundle.source)
    return bundle


def case(name: str, destination: str, *changes: Change) -> Answer:
    """The answer to a bug report."""
    return ask(capture(f"reports/{name}", *changes), "client", destination)


def fault(name: str, way: str, *changes: Change, to: str = WORLD) -> Answer:
    """The answer on a capture by the agent, or by node pods."""
    return ask(capture(f"faults/{name}-{way}.zip", *changes), "client", to)


def test_monitors_drops_of_this_flow_are_the_verdict() -> None:
    path = case("monitor-drop-ignored", "198.51.100.7:443")
    where = dropped_at(path)
    assert (where.kind, where.state) == ("route", "observed")
    assert "2 drops “FIB lookup failed, 4” (monitor, node-a), when is not said" in path.reason
    found = finding(path, "FIB lookup failed, 4 (the packet is not forwarded by this route)")
    assert "xx drop (FIB lookup failed, 4)" in found.evidence[0].excerpt[0]


def test_monitors_drops_of_another_flow_are_not() -> None:
    assert case("monitor-drop-ignored", "198.51.100.7:8443").verdict == "leaves"
    other = swap("node-a", "cilium-dbg monitor", ":443 tcp", ":444 tcp")
    assert case("monitor-drop-ignored", "198.51.100.7:443", other).verdict == "leaves"


def host_firewall(port: int, *changes: Change) -> Answer:
    """The bug report about the host firewall, with the load-balancer of the receiving node, which
    looks at the packet before."""
    bundle = capture("reports/host-firewall-unmentioned", *changes)
    argv = ("cilium-dbg", "bpf", "lb", "list")
    empty = Record(0, agent_place("node-b"), argv, 0, InMemory(b"SERVICE ADDRESS   BACKEND\n"))
    return ask(bundle_of([*bundle.records, empty]), "client", f"node/node-b:{port}")


def test_the_host_firewall_of_the_receiving_node_decides() -> None:
    path = host_firewall(10250)
    where = dropped_at(path)
    assert (where.kind, where.node) == ("policy", "node-b")
    assert "for the host endpoint 99: Policy denied" in where.summary
    assert host_firewall(22).verdict == "reachable"


def test_a_port_that_no_service_has_needs_no_load_balancer_to_be_read() -> None:
    path = case("host-firewall-unmentioned", "node/node-b:10250")
    assert "for the host endpoint 99: Policy denied" in dropped_at(path).summary


STATUS = "cilium-dbg status -o json"


def mode(word: str) -> Change:
    """The receiving node's status says that its host firewall is in this mode."""

    def edit(value: Any) -> None:
        value["host-firewall"]["mode"] = word

    return json_edit("node-b", STATUS, edit)


def test_a_host_firewall_that_is_off_lets_all_pass() -> None:
    path = host_firewall(10250, mode("Disabled"))
    assert path.verdict == "reachable"
    assert not [one for one in path.hops if one.kind == "policy" and one.node == "node-b"]


def test_a_host_endpoint_whose_map_was_not_read_is_unknown() -> None:
    command = "cilium-dbg bpf policy get --all -n"
    renamed = [
        swap("node-b", command, "Endpoint ID: 99", "Endpoint ID: 98"),
        swap("node-b", command, "v2_00099", "v2_00098"),
    ]
    path = host_firewall(10250, *renamed)
    assert path.verdict == "unknown"
    assert "no policy map of the host endpoint 99 was read" in path.reason


def test_a_deny_entry_is_found_by_the_labels_of_the_identity() -> None:
    path = case("deny-named-by-labels", "169.254.169.254:80")
    where = dropped_at(path)
    assert where.kind == "policy"
    assert "Policy denied by denylist" in where.summary
    assert path.fix is not None
    assert "out of the egressDeny rule" in path.fix.text  # no allow helps
    assert case("deny-named-by-labels", "169.254.169.253:80").verdict == "leaves"


def test_labels_that_no_identity_has_leave_it_undecided() -> None:
    nobody = swap("node-a", "cilium-dbg identity list -o json", "16777220", "16777299")
    path = case("deny-named-by-labels", "169.254.169.254:80", nobody)
    assert path.verdict == "unknown"
    assert "cidr:169.254.169.254/32, reserved:world" in path.reason


@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_program_before_ciliums_may_drop_it(way: str) -> None:
    path = fault("v24b-foreign-tcx-eth0", way)
    assert path.verdict == "unknown"
    assert "what filter_tc (tcx/egress, id 12554" in path.reason
    assert path.fix is not None
    assert "12554" in path.fix.command


@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_xdp_program_of_the_receiver_may_drop_it(way: str) -> None:
    path = fault("v25-xdp-node1", way, to="svc/web")
    assert path.verdict == "unknown"
    assert "what filter_xdp (xdp, id 12566" in path.reason


@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_program_that_lets_a_flow_pass_is_no_problem(way: str) -> None:
    """A healthy control: an observer of somebody's, and the flow is answered now."""
    with attempt(8.0):
        path = fault("v24b-foreign-tcx-eth0", way)
    assert path.verdict == "delivered"
    (hop,) = [one for one in path.hops if "filter_tc" in one.summary]
    assert (hop.state, hop.reason) == ("observed", "")
    assert "it let this flow pass" in hop.summary
    assert not [one for one in path.findings if one.severity == "error"]


def test_our_own_netkat_at_a_device_is_named() -> None:
    ours = swap("node2", "bpftool -j net show", "filter_tc", "netkat_gate")
    path = fault("v24b-foreign-tcx-eth0", "agent", ours, swap("node2", PROGRAMS, "filter_tc", "x"))
    (hop,) = [one for one in path.hops if "netkat_gate" in one.summary]
    assert hop.state == "observed"
    assert "kubectl ebpfnet netkat" in hop.summary
    assert "netkat" not in path.reason


def test_a_foreign_program_behind_ciliums_does_not_run() -> None:
    def behind(value: Any) -> None:
        tc = value[0]["tc"]
        tc.append(tc.pop(next(i for i, row in enumerate(tc) if row["name"] == "filter_tc")))

    path = fault(
        "v24b-foreign-tcx-eth0", "agent", json_edit("node2", "bpftool -j net show", behind)
    )
    (hop,) = [one for one in path.hops if "filter_tc" in one.summary]
    assert hop.state == "derived"
    assert "not reached" in hop.summary
    assert "filter_tc" not in path.reason


@pytest.mark.parametrize("way", WAYS)
def test_a_pinned_program_that_is_attached_nowhere_does_not_run(way: str) -> None:
    path = fault("v26-cil-detached-lxc", way)
    assert path.verdict == "unknown"
    error = finding(path, "no program of Cilium's is attached at lxc55417be4e677 (ingress)")
    assert error.severity == "error"
    assert "the pinned link of cil_from_container is attached to no device" in error.title
    assert not any(one.kind in ("policy", "conntrack") for one in path.hops)
    (program,) = [one for one in path.hops if one.where == "node2" and one.kind == "program"]
    assert "Bad file descriptor" not in program.summary + program.reason


@pytest.mark.parametrize("way", WAYS)
def test_a_service_past_a_missing_program_has_that_programs_fix(way: str) -> None:
    bundle = capture(f"faults/v26-cil-detached-lxc-{way}.zip")
    path = ask(bundle, "client", "svc/web")
    assert path.verdict == "unknown"
    assert "no program of Cilium's is attached at lxc55417be4e677 (ingress)" in path.reason
    assert path.fix is not None
    assert path.fix.text == "Let the agent on node2 attach its program again."


def test_a_fix_in_the_agent_is_a_command_of_the_readers_shell() -> None:
    path = fault("v26-cil-detached-lxc", "agent")
    assert path.fix is not None
    assert path.fix.command == (
        "kubectl exec -n kube-system cilium-qst8p -c cilium-agent -- "
        "cilium-dbg endpoint regenerate 845"
    )


def test_audit_mode_lets_pass_what_the_policy_denies() -> None:
    path = fault("v31-audit-mode", "agent")
    assert path.verdict != "dropped"
    warning = finding(path, "endpoint 845 would deny identity 2 (world) at 80/TCP")
    assert warning.severity == "warning"
    assert json.loads(warning.evidence[-1].excerpt[0])["PolicyAuditMode"] == "Enabled"


def audit(option: str) -> Change:
    """PolicyAuditMode of every endpoint."""

    def edit(value: Any) -> None:
        for endpoint in value:
            endpoint["status"]["realized"]["options"]["PolicyAuditMode"] = option
            endpoint["status"]["policy"]["realized"]["policy-enabled"] = "egress"

    return json_edit("node2", ENDPOINTS, edit)


def test_without_audit_mode_it_is_denied() -> None:
    path = fault("v31-audit-mode", "agent", audit("Disabled"))
    assert dropped_at(path).kind == "policy"
    assert "audit" not in path.cause


def test_without_the_option_the_denial_says_what_it_lacks() -> None:
    path = fault("v31-audit-mode", "pod")
    assert path.verdict in ("dropped", "delivered")  # delivered where the answer is of now
    if path.verdict == "dropped":
        assert "whether it is in policy audit mode was not read" in path.cause


def test_a_state_without_the_option_leaves_what_the_configuration_says() -> None:
    """A node pod finds the endpoint's folder, whose files do not tell."""
    starts = swap("", "get configmaps -n kube-system cilium-config", '"data": {',
                  '"data": {"policy-audit-mode": "true", ')  # fmt: skip
    before = capture("faults/v31-audit-mode-pod.zip", starts)
    argv = q.ENDPOINT_STATES.node_argv
    told = Record(0, node_place("node2"), argv, 0, stdout=InMemory(line_of(EndpointState(845))))
    with attempt(12.0):
        path = ask(bundle_of([*before.records, told], "x.zip"), "client", WORLD)
    assert path.verdict != "dropped"
    assert finding(path, "starts endpoints in policy audit mode").severity == "warning"


def test_an_answer_since_the_policys_change_shows_that_it_is_in_audit_mode() -> None:
    """The policy was made 14 s before the table was read, and the node pod knows no options. An
    answer of 12 s ago may be older than the map; another flow of the pod, let through since, is
    not."""
    unread = "but whether the endpoint is in policy audit mode was not read"
    for age, sign in ((8.0, unread), (12.0, f"{unread}, and ")):
        with attempt(age):
            path = fault("v31-audit-mode", "pod")
        assert path.verdict == "delivered"
        (hop,) = [one for one in path.hops if one.kind == "policy"]
        assert sign in hop.reason
    assert "was let through" in hop.reason


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_proves_nothing_once_the_program_is_gone(way: str) -> None:
    with attempt(8.0):
        assert fault("v26-cil-detached-lxc", way).verdict == "unknown"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("age", [None, 8.0])
def test_an_empty_policy_map_denies_everything(way: str, age: float | None) -> None:
    with attempt(age):
        path = fault("v37-policy-map-emptied", way)
    assert dropped_at(path).kind == "policy"
    assert path.drop is not None
    assert path.drop.how == "derived"
    assert "its policy map is empty" in path.cause
    enforces_none = "although the agent enforces no egress policy for it"
    assert (enforces_none in path.cause) == (way == "agent")  # a node pod does not read it
    assert path.fix is not None
    assert path.fix.text.startswith("Allow") == (way == "pod")
    assert "The agent on node2 writes the whole map" in path.fix.text
    assert path.fix.command.endswith("--field-selector spec.nodeName=node2")


@pytest.mark.parametrize(
    ("enforced", "words", "fix"),
    [
        ("both", "its policy map is empty", "Allow "),
        ("ingress", "the agent enforces no egress policy for it", "The agent on node2 "),
        ("", "its policy map is empty", "Allow "),
    ],
)
def test_an_empty_map_is_broken_where_the_agent_enforces_nothing(
    enforced: str, words: str, fix: str
) -> None:
    def edit(value: Any) -> None:
        for endpoint in value:
            endpoint["status"]["policy"]["realized"]["policy-enabled"] = enforced

    with attempt(None):
        path = fault("v37-policy-map-emptied", "agent", json_edit("node2", ENDPOINTS, edit))
    assert words in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith(fix)
    assert ("its map is broken" in path.fix.text) == (not enforced)


def test_a_map_that_was_not_listed_is_not_an_empty_one() -> None:
    def unlisted(value: Any) -> None:
        value[:] = [each for each in value if each["EndpointID"] != "845"]

    with attempt(None):
        path = fault("v37-policy-map-emptied", "agent", json_edit("node2", POLICIES, unlisted))
    assert path.verdict == "unknown"
    assert any("no policy map of endpoint 845 was read" in one.reason for one in path.hops)
