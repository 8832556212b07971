"""`doctor` on bundles made by hand: what can be said of rights, agents, tools and node pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.collect.ask.unasked import EXEC, error_sentence
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ExecTimeout
from kubectl_ebpfnet.explain.doctor import nodes as doctor_nodes
from kubectl_ebpfnet.explain.doctor.report import examine
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.catalogue import BPFTOOL, NF_CONNTRACK, TOOL_NAMES, TOOLS
from kubectl_ebpfnet.model.doctor import CONNECTION, SERVER_VERSION, WHO, Checkup, Level, TraceSight
from kubectl_ebpfnet.model.events import Lacking, TraceLayer
from kubectl_ebpfnet.model.evidence import (
    API,
    CLIENT,
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.model.rights import RIGHTS, can_i
from tests.explain.path.changed import VXLAN, changed
from tests.explain.path.test_drops import OLD_BPFTOOL

ROOT = Path(__file__).parents[3]
SCENARIOS = sorted(p.parent for p in (ROOT / "tests" / "scenarios").glob("*/bundle.json"))
STATUS = q.STATUS.forms[0]
NODE_POD_RIGHTS = ("create namespaces", "create pods", "delete namespaces")


def said(place: Place, argv: tuple[str, ...], value: Any) -> Record:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record(0, place, argv, 0, InMemory(data))


def listed(argv: tuple[str, ...], *items: dict[str, Any]) -> Record:
    return said(API, argv, {"apiVersion": "v1", "kind": "List", "items": list(items)})


def silent(place: Place, error: str, denied: str = "") -> Record:
    return Record(0, place, EXEC, None, error=error, denied=denied)


def node(name: str, ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False", "message": "kubelet gone"}
    return {"kind": "Node", "metadata": {"name": name}, "status": {"conditions": [condition]}}


def agent(on: str, waiting: str = "") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"cilium-{on}",
            "namespace": "kube-system",
            "labels": {"k8s-app": "cilium"},
            "ownerReferences": [{"kind": "DaemonSet", "name": "cilium", "controller": True}],
        },
        "spec": {"nodeName": on, "containers": [{"name": "cilium-agent"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "False" if waiting else "True"}],
            "containerStatuses": [
                {
                    "name": "cilium-agent",
                    "state": {"waiting": {"reason": waiting}} if waiting else {"running": {}},
                }
            ],
        },
    }


def answering(on: str, without: tuple[str, ...] = ()) -> list[Record]:
    there = "".join(f"{name}\n" for name in TOOL_NAMES if name not in without).encode()
    status = {"routing": {"inter-host-routing-mode": "Tunnel", "tunnel-protocol": "vxlan"}}
    place = agent_place(on)
    return [said(place, TOOLS.forms[0], there), said(place, STATUS, status)]


def by_node_pod(on: str, *problems: str) -> Record:
    kernel = KernelFacts("6.12.1", bpf_stats=False, problems=problems)
    return said(node_place(on), node_argv("kernel"), codec.line_of(kernel))


def cluster(
    *records: Record,
    denied: tuple[str, ...] = (),
    within: dict[str, str] | None = None,
    mode: str = "auto",
    version: str = "v1.30.1",
) -> Checkup:
    """A live run. `within`: right → the namespace in which alone it is allowed."""
    within = within or {}
    connection = {
        "context": "c", "server": "https://c", "namespace": "shop", "node_access": mode,
    }  # fmt: skip
    about = [
        said(CLIENT, CONNECTION, connection),
        said(API, SERVER_VERSION, {"gitVersion": version}),
    ]
    for right in RIGHTS:
        allowed = right.words not in denied and right.words not in within
        argv = can_i(right.verb, right.resource, "", right.name)
        about.append(said(API, argv, {"allowed": allowed}))
        if right.words in within:
            argv = can_i(right.verb, right.resource, within[right.words], right.name)
            about.append(said(API, argv, {"allowed": True}))
    return examine(bundle_of([*about, *records]))


def two(*more: Record, **how: Any) -> Checkup:
    """n1 answers by its agent; of n2 `more` tells."""
    nodes = listed(("get", "nodes"), node("n1"), node("n2", how.pop("ready", True)))
    pods = [agent("n1")]
    if "agent2" in how:
        waiting = how.pop("agent2")
        pods.append(agent("n2", waiting))
    return cluster(nodes, listed(("get", "pods", "-A"), *pods), *answering("n1"), *more, **how)


def levels(report: Checkup, name: str) -> dict[str, str]:
    (found,) = (each for each in report.nodes if each.name == name)
    return {reach.command: reach.level.value for reach in found.commands}


def lacks(report: Checkup, name: str, command: str) -> list[tuple[str, str]]:
    (found,) = (each for each in report.nodes if each.name == name)
    return [(lack.what, lack.help) for lack in found.reach(command).lacks]


# --- rights ---------------------------------------------------------------------------------------


def test_labels_are_those_of_the_cluster_room() -> None:
    assert doctor_nodes._LABELS == {manifest.KEEP: "kept", manifest.STANDING: "installed"}


def test_rights_that_hold_in_a_namespace_alone() -> None:
    report = two(within={"get pods": "shop", "get services": "other"})
    by_words = {right.words: right for right in report.rights}
    assert by_words["get pods"].allowed is False
    assert by_words["get pods"].namespaces == ("shop",)
    assert by_words["list pods"].allowed is True
    assert levels(report, "n1")["path"] == "partial"
    ((what, help_),) = lacks(report, "n1", "path")
    assert what == "svc/NAME cannot be named as a destination"
    assert help_ == "get services (tier agents, kubectl ebpfnet doctor --print-rbac=agents)"


def test_who_cannot_name_a_pod_gets_no_path() -> None:
    report = two(denied=("get pods",))
    assert levels(report, "n1") == {
        "path": "blind", "programs": "partial", "flows": "partial", "capture": "full",
    }  # fmt: skip
    assert report.verdict is Level.BLIND


@pytest.mark.parametrize(
    ("version", "verb", "level"),
    [
        ("v1.30.1", "create", "full"),
        ("v1.35.0", "create", "partial"),
        ("", "create", "partial"),
        ("v1.30.1", "get", "partial"),
    ],
)
def test_exec_is_checked_for_other_verbs_by_other_versions(
    version: str, verb: str, level: str
) -> None:
    report = two(version=version, within={f"{verb} pods/exec": "kube-system"})
    assert levels(report, "n1")["path"] == level
    effect = next(r.effect for r in report.rights if r.words == "create pods/exec")
    assert effect.startswith("nothing: this API server") is (version == "v1.30.1")


def test_rights_that_nobody_judged_are_not_denied() -> None:
    first = RIGHTS[0]
    argv = can_i(first.verb, first.resource)
    broken = Record(0, API, argv, None, error="the API server is tired")
    report = two(broken)
    assert report.rights[0].allowed is None
    assert report.missing[0] == f"1 of {len(RIGHTS)} rights: the API server is tired"
    assert levels(report, "n1")["path"] == "full"


def test_who_one_is_where_the_server_says() -> None:
    report = two(said(API, WHO, {"username": "jane", "groups": ["a", "b"]}))
    assert (report.connection.user, report.connection.groups) == ("jane", ("a", "b"))
    assert (two().connection.user, two().connection.groups) == ("", ())


# --- nodes ----------------------------------------------------------------------------------------


def test_by_an_agent_that_has_everything() -> None:
    report = two(*answering("n2"), agent2="")
    for name in ("n1", "n2"):
        assert levels(report, name) == {
            "path": "full", "programs": "partial", "flows": "full", "capture": "full",
        }  # fmt: skip
    assert report.verdict is Level.FULL
    cilium = report.cilium
    assert (cilium.agents, cilium.running, cilium.daemonset) == (2, 2, "cilium")
    assert dict(cilium.features)["routing"] == "tunnel (vxlan)"
    [pods] = report.missing
    assert pods.startswith("what pods see themselves: ")


def test_an_exec_that_is_denied_blinds() -> None:
    refused = silent(agent_place("n2"), "exec is denied", "get pods/exec in namespace kube-system")
    report = two(refused, agent2="")
    assert set(levels(report, "n2").values()) == {"blind"}
    assert lacks(report, "n2", "path") == [("exec is denied", "--node-access pod")]
    assert report.verdict is Level.BLIND
    poor = two(refused, agent2="", denied=NODE_POD_RIGHTS)
    ((what, help_),) = lacks(poor, "n2", "path")
    assert what == "exec is denied; no node pod can be deployed without create namespaces"
    assert help_ == "kubectl ebpfnet doctor --print-rbac=agents, or =deploy for a node pod"


def test_an_agent_that_is_late() -> None:
    spent = Deadline(0)
    reason = error_sentence(ExecTimeout("silence"), spent)
    report = two(silent(agent_place("n2"), reason), agent2="")
    assert lacks(report, "n2", "path") == [(reason, "a longer --timeout")]


def test_a_node_that_is_not_ready_does_not_fail_the_run() -> None:
    report = two(silent(agent_place("n2"), "no answer within 30 s"), agent2="", ready=False)
    assert levels(report, "n2")["path"] == "blind"
    assert lacks(report, "n2", "path")[0][0].startswith("the node is not Ready (kubelet gone)")
    assert report.verdict is Level.FULL


@pytest.mark.parametrize("waiting", ["CrashLoopBackOff", None])
def test_where_no_agent_runs_each_run_would_deploy_a_node_pod(waiting: str | None) -> None:
    how: dict[str, Any] = {"agent2": waiting} if waiting else {}
    why = silent(agent_place("n2"), "no Cilium agent on n2")
    report = two(why, **how)
    (n2,) = (each for each in report.nodes if each.name == "n2")
    assert (n2.by, n2.agent) == ("new node pod", waiting or "")
    assert set(levels(report, "n2").values()) == {"full"}
    assert report.missing[-1].startswith("node pods were not tried")
    for other in ({"denied": NODE_POD_RIGHTS}, {"mode": "agent"}, {"mode": "none"}):
        worse = two(why, **how, **other)
        assert levels(worse, "n2")["path"] == "blind"
        assert worse.verdict is Level.BLIND


def test_a_cluster_without_cilium() -> None:
    report = cluster(
        listed(("get", "nodes"), node("n1")),
        listed(("get", "pods", "-A", "-l", "k8s-app=cilium")),
        silent(agent_place("n1"), "no Cilium agent runs in this cluster"),
        denied=("create namespaces",),
    )
    assert report.cilium.found is False
    ((what, _),) = lacks(report, "n1", "path")
    assert what.startswith("no Cilium agent runs in this cluster; no node pod can be deployed")


@pytest.mark.parametrize(
    ("labels", "origin"),
    [(("node-pod", "keep"), "kept"), (("node-pod",), "installed"), ((), "deployed")],
)
def test_a_node_pod_that_is_there_answers_before_the_agent(
    labels: tuple[str, ...], origin: str
) -> None:
    marked = {f"ebpfnet.dev/{label}": "true" for label in labels}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": "e", "labels": marked},
        "spec": {"nodeName": "n2"},
    }
    kept = listed(("get", "pods", "-A", "-l", "kept"), pod)
    report = two(*answering("n2"), kept, by_node_pod("n2"), agent2="")
    (n2,) = (each for each in report.nodes if each.name == "n2")
    assert (n2.by, n2.node_pod, n2.agent_exec) == ("node pod", origin, True)
    assert n2.kernel is not None
    assert (n2.kernel.release, n2.kernel.bpf_stats) == ("6.12.1", False)
    assert set(levels(report, "n2").values()) == {"full"}
    ours = two(*answering("n2"), by_node_pod("n2"), agent2="", mode="agent")
    assert next(each.by for each in ours.nodes if each.name == "n2") == "agent"


def test_what_a_kernel_cannot_do_is_missing() -> None:
    report = two(by_node_pod("n2", "no bpffs is mounted"), mode="pod")
    assert set(levels(report, "n2").values()) == {"partial"}
    assert lacks(report, "n2", "flows") == [("no bpffs is mounted", "")]
    assert next(each.node_pod for each in report.nodes if each.name == "n2") == "deployed"
    # n1's agent is not asked in this mode, and it has no node pod.
    assert levels(report, "n1")["path"] == "blind"


def test_a_node_pod_that_could_not_be_deployed() -> None:
    why = silent(node_place("n2"), "no node pod: this user may not create namespaces")
    report = two(why, mode="pod", denied=("create namespaces",))
    assert lacks(report, "n2", "path") == [
        (
            "no node pod: this user may not create namespaces",
            "kubectl ebpfnet doctor --print-rbac=deploy",
        )
    ]


def loading(*layers: TraceLayer) -> Record:
    lines = b"".join(codec.line_of(layer) for layer in layers)
    return said(node_place("n2"), node_argv("trace-layers"), lines)


def test_what_trace_will_see_is_what_the_node_pod_found_by_loading() -> None:
    found = (
        TraceLayer("trace", ("queue",), (Lacking("drop", "no such tracepoint"),)),
        TraceLayer("more", (), (Lacking("entry", "not permitted"),)),
    )
    report = two(by_node_pod("n2"), loading(*found))
    n1, n2 = report.nodes
    assert n2.trace == TraceSight(found)
    help_ = "doctor --node-access pod"
    assert n1.trace == TraceSight((), "no node pod was asked", help_)
    denied = two(denied=("create namespaces",)).nodes[0].trace
    assert denied.unknown.endswith("none can be deployed without create namespaces")
    assert "--print-rbac=node-pods" in denied.help


def test_what_trace_will_see_is_not_known_where_loading_was_not_answered() -> None:
    late = Record(0, node_place("n2"), node_argv("trace-layers"), None, error="no time")
    trace = two(by_node_pod("n2"), late).nodes[1].trace
    assert (trace.layers, "no time" in trace.unknown) == ((), True)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        (("cilium-dbg",), {"path": "full", "flows": "full"}),
        (("cilium-dbg", "cilium"), {"path": "partial", "flows": "partial", "programs": "partial"}),
        ((NF_CONNTRACK,), {"path": "full", "flows": "full"}),
        ((NF_CONNTRACK, "conntrack"), {"path": "partial", "flows": "partial"}),
        (
            ("cilium-dbg", "cilium", NF_CONNTRACK, "conntrack"),
            {"path": "partial", "flows": "blind"},
        ),
        (("tc",), {"path": "full"}),
        (("bpftool",), {"path": "partial", "programs": "partial", "flows": "full"}),
        (("tc", "bpftool"), {"path": "partial", "programs": "blind", "capture": "partial"}),
        (("iptables-save",), {"path": "partial", "programs": "partial", "flows": "full"}),
        (("ip",), {"path": "partial", "flows": "full"}),
    ],
)  # fmt: skip
def test_tools_that_an_image_lacks(without: tuple[str, ...], expected: dict[str, str]) -> None:
    report = two(*answering("n2", without), agent2="")
    found = levels(report, "n2")
    assert {command: found[command] for command in expected} == expected
    for command, level in expected.items():
        if level != "full":
            assert all("--node-access pod" in help_ for _, help_ in lacks(report, "n2", command))


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ({"version": "7.1.0", "libbpf_version": "1.1"}, "partial"),
        ({"version": "v5.15.0"}, "partial"),
        ({"version": "7.3.0"}, "full"),
        ({"version": "7.10.0"}, "full"),
        ({"version": "of tomorrow"}, "full"),  # nothing speaks against it
        (b"no JSON", "full"),
    ],
)
def test_a_bpftool_that_shows_no_tcx(version: Any, level: str) -> None:
    asked = said(agent_place("n2"), BPFTOOL.forms[0], version)
    report = two(*answering("n2"), asked, agent2="")
    found = levels(report, "n2")
    assert (found["path"], found["capture"], found["flows"]) == (level, level, "full")
    for command in ("path", "programs", "capture"):
        told = [lack for lack in lacks(report, "n2", command) if "tcx" in lack[0]]
        assert bool(told) == (level == "partial")
        assert all(version["version"] in what and "--node-access pod" in how for what, how in told)


def test_a_capture_by_an_old_bpftool_shows_it_by_its_links() -> None:
    report = examine(changed(VXLAN, *OLD_BPFTOOL))
    assert (levels(report, "node1")["path"], levels(report, "node2")["path"]) == ("full", "partial")
    ((what, how),) = lacks(report, "node2", "path")
    assert "its bpftool does not tell of which devices pinned links are" in what
    assert "a new capture" in how
    assert levels(examine(changed(VXLAN)), "node2")["path"] == "full"


def test_an_agent_that_does_not_answer_itself() -> None:
    records = answering("n2")
    dead = Record(0, agent_place("n2"), STATUS, 1, stderr=b"Error: cannot connect\n")
    report = two(records[0], dead, agent2="")
    ((what, _),) = lacks(report, "n2", "path")
    assert what.endswith("it does not answer (exit code 1: Error: cannot connect)")


def test_nodes_that_differ_are_told_apart() -> None:
    place = agent_place("n2")
    native = said(place, STATUS, {"routing": {"inter-host-routing-mode": "Native"}})
    report = two(answering("n2")[0], native, agent2="")
    assert dict(report.cilium.features)["routing"] == "tunnel (vxlan) (n1), native (n2)"


def test_where_nothing_may_be_listed() -> None:
    denied = tuple(right.words for right in RIGHTS)
    refused = Record(0, API, ("get", "nodes"), None, error="may not list nodes", denied="x")
    report = cluster(refused, denied=denied)
    assert report.nodes == ()
    assert {reach.level for reach in report.commands} == {Level.BLIND}
    assert report.verdict is Level.BLIND
    assert report.cilium.found is None
    assert report.missing == ("the nodes: may not list nodes",)


# --- captures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda folder: folder.name)
def test_of_a_capture_the_rights_are_not_known(folder: Path) -> None:
    report = examine(open_bundle(folder))
    assert report.rights == ()
    assert report.missing[0].startswith("this user's rights")
    assert report.nodes
    assert report.cilium.found
    for each in report.nodes:
        assert each.by == ("shell" if folder.name == "tp06" else "agent")
        assert each.reach("path").level is not Level.BLIND


def test_an_empty_capture() -> None:
    report = examine(bundle_of([]))
    assert report.verdict is Level.BLIND
    assert report.nodes == ()


def test_an_agent_whose_programs_could_not_be_read_is_not_full() -> None:
    cut = Record(0, agent_place("n2"), TOOLS.forms[0], None, error="the connection broke")
    report = two(said(agent_place("n2"), STATUS, {}), cut, agent2="")
    assert set(levels(report, "n2").values()) == {"partial"}
    what = "which programs the agent's image has is not known (the connection broke)"
    assert (what, "") in lacks(report, "n2", "flows")


def test_a_capture_lacks_what_it_does_not_hold() -> None:
    report = examine(open_bundle(ROOT / "tests" / "scenarios" / "tp06"))
    assert report.verdict is Level.PARTIAL
    [node] = report.nodes
    [tables] = node.reach("path").lacks
    assert tables.what.startswith("8 of the 11 tables that it reads: `ip -j rule`")
    assert node.reach("flows").level is Level.FULL
    assert "--node-access pod" not in " ".join(lack.what for lack in node.reach("path").lacks)


def test_pods_without_a_shell_are_counted() -> None:
    whole = open_bundle(ROOT / "tests" / "scenarios" / "vxlan-kpr")
    web = pod_place("default", "web")
    refused = Record(0, web, EXEC, None, error="the image has no shell, and none of cat, ip")
    cut = bundle_of([r for r in whole.records if r.place != web] + [refused], "a capture")
    of_node = {node.name: node for node in examine(cut).nodes}
    [lack] = of_node["node1"].reach("path").lacks
    assert lack.what == (
        "what a pod sees itself: default/web (the image has no shell, and none of cat, ip)"
    )
    assert of_node["node2"].reach("path").level is Level.FULL
