"""Which policy a verdict of the map comes from, where the objects are changed, denied or unread.

A real cluster whose policies each select one pod (tests/features/policies).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.stages import audit_signs
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import API, Bundle, InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.path import Severity, Verdict

CAPTURE = Path(__file__).parents[2] / "features" / "policies" / "agent.zip"
POLICIES = ("get", "ciliumnetworkpolicies", "-A")
KUBERNETES = ("get", "networkpolicies", "-A")
GROUPS = ("get", "ciliumcidrgroups")
IDENTITIES = ("cilium-dbg", "identity", "list", "-o", "json")
MAPS = ("cilium-dbg", "bpf", "policy", "get", "--all", "-o", "json")
DENIED = "list {} in the whole cluster"

Change = Callable[[Record], Record | None]


@cache
def recorded() -> Bundle:
    return open_bundle(CAPTURE)


def changed(*changes: Change) -> Bundle:
    """The records, each changed by those that are about it."""
    kept = []
    for record in recorded().records:
        found: Record | None = record
        for change in changes:
            found = change(found) if found is not None else None
        kept += [found] if found is not None else []
    return bundle_of(kept, "x.zip")


def of(argv: tuple[str, ...], change: Change) -> Change:
    return lambda record: change(record) if record.argv == argv else record


def unread(argv: tuple[str, ...]) -> Change:
    return of(argv, lambda _: None)


def denied(argv: tuple[str, ...]) -> Change:
    def fail(record: Record) -> Record:
        verb = DENIED.format(argv[1])
        error = f"you may not {verb}"
        return replace(record, exit_code=None, stdout=InMemory(), error=error, denied=verb)

    return of(argv, fail)


def edited(name: str, edit: Callable[[dict[str, Any]], None]) -> Change:
    """One policy is edited, after its map was computed."""

    def change(record: Record) -> Record:
        value = json.loads(record.stdout.read())
        (policy,) = (item for item in value["items"] if item["metadata"]["name"] == name)
        edit(policy)
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    return of(POLICIES, change)


def added(*items: dict[str, Any], argv: tuple[str, ...] = KUBERNETES) -> Change:
    def change(record: Record) -> Record:
        value = {"kind": "List", "apiVersion": "v1", "items": list(items)}
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    return of(argv, change)


def ask(source: str, destination: str, *changes: Change) -> Answer:
    there = arguments.destination(destination)
    number = arguments.protocol("tcp", there)
    request = arguments.request(arguments.source(source), there, number, "default", "")
    return explain(request, changed(*changes))


def warnings(path: Answer) -> list[str]:
    return [f"{f.title}: {f.detail}" for f in path.findings if f.severity is Severity.WARNING]


def hop_of(path: Answer, words: str) -> str:
    (found,) = (hop.summary for hop in path.hops if hop.kind == "policy" and words in hop.summary)
    return found


TO_RANGE = ("pod/client", "pod/t-range:9000")


def test_the_rule_is_cited() -> None:
    path = ask(*TO_RANGE)
    assert path.drop is not None
    assert path.drop.object == "CiliumNetworkPolicy default/portrange"
    hop = path.hops[path.drop.hop - 1]
    quoted = [line for each in hop.evidence for line in each.excerpt if "toPorts" in line]
    assert json.loads(quoted[0])["toPorts"][0]["ports"][0]["endPort"] == 8100


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (denied(POLICIES), "this user may not list ciliumnetworkpolicies in the whole cluster"),
        (
            unread(POLICIES),
            "the records have no list of ciliumnetworkpolicies of namespace default",
        ),
    ],
)
def test_without_the_policies_the_map_decides_and_the_name_is_unknown(
    change: Change, why: str
) -> None:
    path = ask(*TO_RANGE, change)
    assert path.verdict is Verdict.DROPPED
    assert path.drop is not None
    assert path.drop.object == ""
    assert "which policy denies it is not known" in path.cause
    assert why in path.cause
    let_in = ask("pod/client", "pod/t-range:8080", change)
    assert let_in.verdict in (Verdict.REACHABLE, Verdict.DELIVERED)
    assert "by which policy is not known: " in hop_of(let_in, "endpoint 1209")
    assert why in hop_of(let_in, "endpoint 1209")
    assert warnings(let_in) == []


def test_one_kind_that_may_not_be_read_leaves_the_known_names() -> None:
    for change in (denied(KUBERNETES), unread(KUBERNETES)):
        path = ask(*TO_RANGE, change)
        assert "CiliumNetworkPolicy default/portrange selects pod default/t-range" in path.cause
        let_in = ask("pod/client", "pod/t-range:8080", change)
        assert "by CiliumNetworkPolicy default/portrange" in hop_of(let_in, "endpoint 1209")
        other = ask("pod/client", "pod/t-nodd:8080", change)  # nothing is claimed of the unread
        assert "no policy" not in hop_of(other, "ingress policy")


def test_groups_that_may_not_be_read() -> None:
    path = ask("pod/c-cg", "1.1.2.1:80", denied(GROUPS))
    assert "CiliumNetworkPolicy default/cidrgroup selects pod default/c-cg" in path.cause
    let_out = ask("pod/c-cg", "1.1.1.1:80", denied(GROUPS))
    assert "by CiliumNetworkPolicy default/cidrgroup egress[0]" in hop_of(let_out, "endpoint 3338")


def without_entries(endpoint: int, keep: Callable[[dict[str, Any]], bool]) -> Change:
    """The agents' maps of an endpoint have only the entries that are kept."""

    def change(record: Record) -> Record:
        maps = json.loads(record.stdout.read())
        for each in maps:
            if each["EndpointID"] == str(endpoint):
                each["Content"] = [entry for entry in each["Content"] if keep(entry)]
        return replace(record, stdout=InMemory(json.dumps(maps).encode()))

    return of(MAPS, change)


def test_a_rule_whose_group_was_not_read_may_allow_what_the_map_denies() -> None:
    gone = without_entries(3338, lambda entry: entry["Key"]["Identity"] < 1 << 24)
    path = ask("pod/c-cg", "1.1.1.1:80", gone, denied(GROUPS), unread(IDENTITIES))
    assert path.verdict is Verdict.DROPPED
    assert "egress[0] (to CiliumCIDRGroup grp) should is not known: CiliumCIDRGroup" in path.cause
    assert path.fix is not None
    assert "should allow it: then the agent on node2 is behind" in path.fix.text
    # What is in no CIDR that the agent knows is in no group either.
    world = ask("pod/c-cg", "1.1.2.1:80", denied(GROUPS), unread(IDENTITIES))
    assert "is not known" not in world.cause


def test_an_empty_map_against_a_rule_is_no_reason_for_another_rule() -> None:
    path = ask("pod/client", "pod/t-range:8080", without_entries(1209, lambda _: False))
    assert path.verdict is Verdict.DROPPED
    assert "CiliumNetworkPolicy default/portrange ingress[0]" in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith("The agent on node1 writes the whole map of endpoint 1209")
    assert path.fix.command.endswith("--field-selector spec.nodeName=node1")


def widen(policy: dict[str, Any]) -> None:
    policy["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["endPort"] = 9100


def test_a_rule_that_the_map_does_not_follow_is_the_finding() -> None:
    path = ask(*TO_RANGE, edited("portrange", widen))
    assert path.verdict is Verdict.DROPPED
    assert "ingress[0] (from every pod in namespace default at 8000-9100/TCP) allows it, but its " \
        "policy map does not: the agent on node1 is behind" in path.cause  # fmt: skip
    assert path.fix is not None
    assert "agent on node1" in path.fix.text
    assert path.drop is not None
    assert path.drop.object == "CiliumEndpoint default/t-range"

    def late(policy: dict[str, Any]) -> None:
        widen(policy)
        policy["metadata"]["creationTimestamp"] = read_at()

    assert "changed about when the map was read" in ask(*TO_RANGE, edited("portrange", late)).cause


def read_at() -> str:
    maps = (r for r in recorded().records if r.argv[1:4] == ("bpf", "policy", "get"))
    return next(record.started for record in maps if record.ok)


def test_what_the_map_allows_against_the_policies_is_the_finding() -> None:
    block = {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "nobody"},
        "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]},
    }
    path = ask("pod/client", "pod/t-range:8080", added(block))
    assert path.verdict in (Verdict.REACHABLE, Verdict.DELIVERED)
    (said,) = warnings(path)
    assert "policy map of endpoint 3084 on node2 does not follow the policies" in said
    assert "NetworkPolicy default/nobody selects pod default/client, and no egress rule" in said
    assert "by NetworkPolicy" not in hop_of(path, "endpoint 3084")


def test_a_deleted_policy_that_the_map_still_has_is_the_finding() -> None:
    path = ask("pod/c-ed", "1.1.1.1:80", added(argv=POLICIES))
    assert path.verdict is Verdict.DROPPED
    assert (
        "no policy selects it for egress, so that it should be let through: the agent" in path.cause
    )


def test_a_cidr_that_has_the_address_of_a_pod_or_node_is_said_to_select_none() -> None:
    def by_address(policy: dict[str, Any]) -> None:
        policy["spec"]["ingress"] = [{"fromCIDR": ["10.44.0.0/16"]}]

    path = ask("pod/client", "pod/t-ns:8080", edited("ns", by_address))
    assert "ingress[0] (from 10.44.0.0/16) has the address, but CIDRs of Cilium select no pods " \
        "and nodes" in path.cause  # fmt: skip
    assert path.fix is not None
    assert "add a rule that allows 8080/TCP from 10.44.1.144 (pod default/client)" in path.fix.text


def test_a_network_policy_can_select_no_node() -> None:
    block = {"cidr": "172.31.0.0/16"}
    spec = {
        "podSelector": {"matchLabels": {"app": "t-iden"}},
        "ingress": [{"from": [{"ipBlock": block}]}],
    }
    item = {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "n"},
        "spec": spec,
    }
    maps = of(MAPS, denies_remote_nodes)
    path = ask("pod/hostnet", "pod/t-iden:8080", added(item), added(argv=POLICIES), maps)
    assert "NetworkPolicy default/n selects pod default/t-iden" in path.cause
    assert path.fix is not None
    assert "by fromEntities remote-node in a CiliumNetworkPolicy" in path.fix.text
    assert path.fix.command == ""


def denies_remote_nodes(record: Record) -> Record:
    """Of endpoint 820, the one entry that lets its own node in is left."""
    value = json.loads(record.stdout.read())
    for each in value:
        if each["EndpointID"] == "820":
            each["Content"] = [entry for entry in each["Content"] if entry["Key"]["Identity"] == 1]
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


def test_without_a_map_the_policies_say_what_should_be() -> None:
    path = ask(*TO_RANGE, unread(MAPS))
    assert path.verdict is Verdict.UNKNOWN
    (denied_,) = (h.reason for h in path.hops if "denied" in h.reason)
    assert "by the policies in the cluster it is denied: CiliumNetworkPolicy default/portrange" \
        " selects pod default/t-range, and no ingress rule allows 9000/TCP" in denied_  # fmt: skip
    path = ask("pod/client", "pod/t-range:8080", unread(MAPS))
    assert any("it is allowed (CiliumNetworkPolicy default/portrange ingress[0]" in h.reason
               for h in path.hops)  # fmt: skip


def test_several_policies_are_all_named() -> None:
    items = [
        {"kind": "NetworkPolicy", "metadata": {"namespace": "default", "name": f"p{n}"},
         "spec": {"podSelector": {"matchLabels": {"app": "t-range"}}, "policyTypes": ["Ingress"]}}
        for n in range(5)
    ]  # fmt: skip
    path = ask(*TO_RANGE, added(*items))
    assert "CiliumNetworkPolicy default/portrange" in path.cause
    assert "and 3 more select pod default/t-range" in path.cause
    assert "the nearest is CiliumNetworkPolicy default/portrange ingress[0]" in path.cause
    assert path.drop is not None
    assert path.drop.object == "CiliumNetworkPolicy default/portrange"


def test_a_policy_that_cilium_refuses_is_a_warning() -> None:
    def invalid(policy: dict[str, Any]) -> None:
        policy["status"] = {"conditions": [
            {"type": "Valid", "status": "False", "message": "invalid port range"}]}  # fmt: skip

    path = ask("pod/client", "pod/t-nodd:8080", edited("nodd", invalid))
    (said,) = warnings(path)
    assert "Cilium refuses CiliumNetworkPolicy default/nodd, which would select endpoint" in said
    assert "invalid port range" in said


def refused(policy: dict[str, Any]) -> None:
    policy["status"] = {"conditions": [
        {"type": "Valid", "status": "False", "message": "invalid port range"}]}  # fmt: skip


def test_an_agent_keeps_what_a_policy_was_before_it_was_refused() -> None:
    """The map still denies; a restart would open it, and is not advised."""
    path = ask("pod/client", "pod/t-range:9000", edited("portrange", refused))
    assert path.verdict is Verdict.DROPPED
    assert "an agent that had an older version of it keeps that" in path.cause
    assert "is behind" not in path.cause
    assert path.drop is not None
    assert path.drop.object == "CiliumNetworkPolicy default/portrange"
    assert path.fix is not None
    assert path.fix.text.startswith("Correct CiliumNetworkPolicy default/portrange: invalid port")
    assert path.fix.command == "kubectl edit ciliumnetworkpolicy -n default portrange"


def test_a_policy_that_is_being_deleted_holds_until_it_is_gone() -> None:
    def delete(policy: dict[str, Any]) -> None:
        policy["metadata"]["deletionTimestamp"] = "2026-11-30T05:00:00Z"

    path = ask("pod/client", "pod/t-range:9000", edited("portrange", delete))
    assert "CiliumNetworkPolicy default/portrange selects pod default/t-range" in path.cause
    assert (
        "default/portrange is being deleted: it holds until its finalizers are gone" in path.cause
    )


def authenticated(requirement: int) -> Change:
    """The entries of pod t-range want authentication: 1 by SPIRE, 2 is a test's."""

    def change(record: Record) -> Record:
        value = json.loads(record.stdout.read())
        for block in value:
            for entry in block["Content"] if block["EndpointID"] == "1209" else ():
                entry["AuthRequirement"] = requirement | 0x80
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    return of(MAPS, change)


def configured(**settings: str) -> Change:
    def change(record: Record) -> Record:
        if "cilium-config" not in record.argv:
            return record
        value = json.loads(record.stdout.read())
        value["data"].update({key.replace("_", "-"): text for key, text in settings.items()})
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    return change


UNSEEN = of(
    ("cilium-dbg", "bpf", "ct", "list", "global", "-d"), lambda r: replace(r, stdout=InMemory())
)


@pytest.mark.parametrize(
    ("requirement", "settings", "verdict", "why"),
    [
        (1, {}, Verdict.DROPPED, "no agent authenticates by SPIRE, as long as mesh-auth-mutual-en"),
        (1, {"mesh_auth_enabled": "false", "mesh_auth_mutual_enabled": "true"}, Verdict.DROPPED,
         "no agent authenticates, as long as mesh-auth-enabled is false"),
        (1, {"mesh_auth_mutual_enabled": "true"}, Verdict.UNKNOWN, "mutual authentication"),
        (2, {"mesh_auth_mutual_enabled": "true"}, Verdict.DROPPED, "test-always-fail never"),
    ],
)  # fmt: skip
def test_authentication_that_nobody_gives(
    requirement: int, settings: dict[str, str], verdict: Verdict, why: str
) -> None:
    changes = (authenticated(requirement), configured(**settings), UNSEEN)
    path = ask("pod/client", "pod/t-range:8080", *changes)
    assert path.verdict is verdict
    assert why in path.cause
    if verdict is Verdict.DROPPED:
        assert path.drop is not None
        assert path.drop.object == "CiliumNetworkPolicy default/portrange"
        assert path.hops[-1].summary.endswith(": Authentication required")


@pytest.mark.parametrize("dns", [False, True])
def test_names_without_dns_rules_are_never_learnt(dns: bool) -> None:
    def by_name(policy: dict[str, Any]) -> None:
        ports = [{"ports": [{"port": "443", "protocol": "TCP"}]}]
        policy["spec"]["egress"] = [{"toFQDNs": [{"matchName": "a.example"}], "toPorts": ports}]
        if dns:
            ports = [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}]
            policy["spec"]["egress"] += [{"toEntities": ["cluster"], "toPorts": ports}]

    path = ask("pod/c-cg", "1.1.2.1:443", edited("cidrgroup", by_name))
    assert path.verdict is Verdict.DROPPED
    never = "no egress rule that selects the pod has dns rules"
    assert (never in path.cause) is not dns
    assert path.fix is not None
    assert path.fix.text.startswith("Add dns rules") is not dns
    assert dns or path.fix.command == "kubectl edit ciliumnetworkpolicy -n default cidrgroup"


def rule_of(member: str, rule: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda policy: policy["spec"].update({member: [rule]})


def test_a_group_and_a_named_port_that_nobody_has() -> None:
    gone = rule_of("egress", {"toCIDRSet": [{"cidrGroupRef": "gone"}]})
    path = ask("pod/c-cg", "1.1.2.1:80", edited("cidrgroup", gone))
    assert path.cause.endswith("(to CiliumCIDRGroup gone); there is no CiliumCIDRGroup gone")
    there = ask("pod/c-cg", "1.1.2.1:80")
    assert "there is no" not in there.cause
    # The pod that receives it has 8080 as `http`.
    for name, said in (("nosuch", True), ("udp", False)):
        ports = {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": name}]}]}
        path = ask("pod/client", "pod/t-ns:8080", edited("ns", rule_of("ingress", ports)))
        assert path.verdict == "dropped"
        assert ("no container of pod default/t-ns names a port nosuch" in path.cause) is said


CONFIG = ("get", "configmaps", "-n", "kube-system", "cilium-config")


def always(record: Record) -> Record:
    value = json.loads(record.stdout.read())
    for item in value.get("items", [value]):
        item["data"]["enable-policy"] = "always"
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


def test_policies_that_are_always_enforced_deny_without_one() -> None:
    path = ask("pod/client1", "pod/t-ns:8080", added(argv=POLICIES), of(CONFIG, always))
    assert path.verdict == "dropped"
    assert path.cause == (
        "policies are always enforced (enable-policy: always), and no ingress rule allows "
        "8080/TCP from 10.44.0.132 (pod default/client1)"
    )
    assert path.fix is not None
    assert "policyEnforcementMode" in path.fix.text
    assert path.drop is not None
    assert path.drop.object == ""
    # Where the map lets it pass without a policy, the map is behind the setting.
    passes = ask("pod/client", "pod/t-range:8080", added(argv=POLICIES), of(CONFIG, always))
    assert passes.verdict.let_through
    assert all("policies are always enforced" in said for said in warnings(passes))


def test_names_of_strangers_are_harmless() -> None:
    def odd(policy: dict[str, Any]) -> None:
        policy["metadata"]["name"] = "x; rm -rf / \x1b[31m"

    path = ask(*TO_RANGE, edited("portrange", odd))
    assert path.fix is not None
    assert shlex.split(path.fix.command)[-1] == "x; rm -rf / \x1b[31m"


ENDPOINTS = ("cilium-dbg", "endpoint", "list", "-o", "json")
CILIUM_ENDPOINTS = ("get", "ciliumendpoints", "-A")
IDENTITIES = ("cilium-dbg", "identity", "list", "-o", "json")
OBJECTS = ("get", "ciliumidentities")


def test_labels_come_from_whoever_was_read() -> None:
    hung = unread(ENDPOINTS)
    path = ask(*TO_RANGE, hung, unread(IDENTITIES))
    assert "CiliumNetworkPolicy default/portrange selects pod default/t-range" in path.cause
    alone = ask(*TO_RANGE, hung, unread(IDENTITIES), unread(CILIUM_ENDPOINTS))
    assert "CiliumNetworkPolicy default/portrange selects pod default/t-range" in alone.cause
    nobody = (hung, unread(IDENTITIES), denied(CILIUM_ENDPOINTS), unread(OBJECTS))
    blind = ask(*TO_RANGE, *nobody)
    assert blind.verdict is Verdict.DROPPED
    assert "which policy denies it is not known: the labels of " in blind.cause
    assert "this user may not list ciliumendpoints in the whole cluster" in blind.cause
    assert blind.drop is not None
    assert blind.drop.object == ""


def test_a_list_that_is_not_understood_is_unread() -> None:
    def broken(record: Record) -> Record:
        value = {"kind": "List", "items": [{"kind": "CiliumNetworkPolicy", "metadata": {}}]}
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    path = ask(*TO_RANGE, of(POLICIES, broken))
    assert "which policy denies it is not known" in path.cause


def test_an_empty_map_that_no_policy_asks_for_is_written_anew() -> None:
    def emptied(record: Record) -> Record:
        value = json.loads(record.stdout.read())
        for each in value:
            if each["EndpointID"] == "3084":
                each["Content"] = []
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    path = ask("pod/client", "1.1.1.1:80", of(MAPS, emptied), unread(ENDPOINTS))
    assert "its policy map is empty" in path.cause
    assert "no policy selects it for egress, so that it should be let through" in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith("The agent on node2 writes the whole map of endpoint 3084")


def denies_all_egress(record: Record) -> Record:
    """Of endpoint 3084 (client), no entry of egress is left."""
    value = json.loads(record.stdout.read())
    for each in value:
        if each["EndpointID"] == "3084":
            kept = [e for e in each["Content"] if e["Key"]["TrafficDirection"] == 0]
            each["Content"] = kept
    return replace(record, stdout=InMemory(json.dumps(value).encode()))


def of_client(*rules: dict[str, Any]) -> Change:
    spec = {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]}
    meta = {"namespace": "default", "name": "out"}
    return added({"kind": "NetworkPolicy", "metadata": meta, "spec": {**spec, "egress": [*rules]}})


def test_policies_see_the_backend_and_its_port() -> None:
    web = [{"podSelector": {"matchLabels": {"app": "web"}}}]
    maps = of(MAPS, denies_all_egress)
    by_port = ask("pod/client", "svc/web:80", of_client({"to": web, "ports": [{"port": 80}]}), maps)
    assert "egress[0] (to app=web in namespace default at 80/TCP), which is the Service's port: " \
        "policies see that of its backend" in by_port.cause  # fmt: skip
    assert by_port.fix is not None
    assert "add 8080/TCP to egress[0] of NetworkPolicy default/out" in by_port.fix.text
    block = {"to": [{"ipBlock": {"cidr": "10.97.0.0/16"}}]}
    by_address = ask("pod/client", "svc/web:80", of_client(block), maps)
    assert "egress[0] (to 10.97.0.0/16) has the Service's address, but policies see that of its " \
        "backend" in by_address.cause  # fmt: skip
    other = ask("pod/client", "svc/web:80", of_client({"to": web, "ports": [{"port": 81}]}), maps)
    assert "Service's" not in other.cause


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "soon"])
def test_a_time_that_no_clock_shows_decides_nothing(time: str) -> None:
    def odd(policy: dict[str, Any]) -> None:
        policy["metadata"]["creationTimestamp"] = time

    cluster = ClusterView(changed(edited("portrange", odd)))
    record = Record(0, API, ("get",), 0, started="2026-11-30T05:00:11Z")
    assert audit_signs.is_since_changes(cluster, record, 1.0) is time.startswith("0001")
    assert ask(*TO_RANGE, edited("portrange", odd)).verdict


def test_policies_that_may_not_be_listed_are_named_as_not_read() -> None:
    holds = "that the policy map of endpoint 1209 holds what the policies ask for: "
    path = ask("pod/client", "pod/t-range:8080", denied(POLICIES))
    (said,) = (what for what in path.presumed if what.startswith(holds))
    assert "this user may not list ciliumnetworkpolicies in the whole cluster" in said
    assert not any(
        what.startswith(holds) for what in ask("pod/client", "pod/t-range:8080").presumed
    )
