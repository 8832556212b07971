"""Rules of every kind against packets: allowed, denied, or what leaves it undecided.

Objects are written as YAML flow would have them; the API server's JSON of real ones is in
test_against_maps.py.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.explain.policy.evaluate import Enforcement, PolicyAnswer, evaluate
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.policy.peers import Surroundings
from kubectl_ebpfnet.explain.policy.ports import Traffic
from kubectl_ebpfnet.model.kube import ContainerPort
from kubectl_ebpfnet.model.policy import CidrGroup, Policy
from kubectl_ebpfnet.parse import policies

TCP, UDP, ICMP = 6, 17, 1


def pod(namespace: str, *labels: str, account: str = "default", **more: Any) -> Party:
    own = (
        f"k8s:io.kubernetes.pod.namespace={namespace}",
        f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}",
        f"k8s:io.cilium.k8s.policy.serviceaccount={account}",
        "k8s:io.cilium.k8s.policy.cluster=default",
        *(f"k8s:{label}" for label in labels),
    )
    known = {"address": ip_address("10.0.1.7"), "outside": False, "namespace": namespace, **more}
    return Party(frozenset(own), **known)


def world(address: str, *labels: str, **more: Any) -> Party:
    return Party(
        frozenset(labels or ("reserved:world",)), address=ip_address(address), outside=True, **more
    )


def reserved(*names: str, address: str = "192.0.2.11") -> Party:
    labels = frozenset(f"reserved:{name}" for name in names)
    return Party(labels, address=ip_address(address), outside=False)


WEB = pod("shop", "app=web", ports=(ContainerPort(8080, TCP, "http"),))
CLIENT = pod("shop", "app=client")
OTHER = pod("bank", "app=client", account="teller")
NAME = "kubernetes.io/metadata.name"
AROUND = Surroundings(cluster="default", groups=())


def netpol(spec: dict[str, Any], name: str = "np") -> Policy:
    value = {"metadata": {"namespace": "shop", "name": name}, "spec": spec}
    return policies.policy(value, "NetworkPolicy")


def cnp(spec: dict[str, Any], name: str = "cnp", **more: Any) -> Policy:
    value = {"metadata": {"namespace": "shop", "name": name}, "spec": spec, **more}
    return policies.policy(value, "CiliumNetworkPolicy")


def ccnp(spec: dict[str, Any], name: str = "ccnp") -> Policy:
    value = {"metadata": {"name": name}, "spec": spec}
    return policies.policy(value, "CiliumClusterwideNetworkPolicy")


def said(
    them: list[Policy],
    other: Party,
    port: int | None = 80,
    protocol: int = TCP,
    *,
    direction: str = "ingress",
    own: Party = WEB,
    around: Surroundings = AROUND,
    enforcement: Enforcement | None = None,
) -> PolicyAnswer:
    named = (other if direction == "egress" else own).ports
    traffic = Traffic(protocol, port, named, direction == "egress")
    settings = enforcement or Enforcement()
    return evaluate(them, own, other, direction, traffic, around, settings)


def names(answer: PolicyAnswer) -> list[str]:
    return [f"{a.policy.title} {text.rule(a.rule)}" for a in answer.matching(deny=False)]


# --- Kubernetes -----------------------------------------------------------------------------------


def test_without_a_policy_all_may_pass() -> None:
    answer = said([], CLIENT)
    assert (answer.allowed, answer.why) == (True, "no policy selects it for ingress")


def test_a_policy_without_rules_denies_its_directions() -> None:
    for spec, ingress, egress in (
        ({"podSelector": {}}, False, True),  # the API's default
        ({"podSelector": {}, "policyTypes": ["Ingress"]}, False, True),
        ({"podSelector": {}, "policyTypes": ["Egress"]}, True, False),
        ({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, False, False),
        ({"podSelector": {}, "egress": [{}]}, False, True),
        ({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}, True, True),
    ):
        assert said([netpol(spec)], CLIENT).allowed is ingress, spec
        assert said([netpol(spec)], CLIENT, direction="egress").allowed is egress, spec
    answer = said([netpol({"podSelector": {}})], CLIENT)
    assert [p.title for p in answer.denying_by_default] == ["NetworkPolicy shop/np"]


def test_a_rule_without_peers_is_for_everyone_and_one_without_ports_for_all() -> None:
    for other in (CLIENT, OTHER, world("203.0.113.7"), reserved("remote-node")):
        assert said([netpol({"podSelector": {}, "ingress": [{}]})], other).allowed
        assert said(
            [netpol({"podSelector": {}, "ingress": [{"from": []}]})], other, 8, ICMP
        ).allowed
    by_port = netpol({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]})
    assert said([by_port], OTHER).allowed
    assert said([by_port], OTHER, 81).allowed is False
    assert said([by_port], OTHER, 80, UDP).allowed is False  # the protocol is TCP by default
    assert said([by_port], OTHER, 8, ICMP).allowed is False


@pytest.mark.parametrize(
    ("peer", "client", "other"),
    [
        ({"podSelector": {"matchLabels": {"app": "client"}}}, True, False),
        ({"podSelector": {}}, True, False),
        ({"namespaceSelector": {}}, True, True),
        ({"namespaceSelector": {"matchLabels": {NAME: "bank"}}}, False, True),
        (
            {"namespaceSelector": {"matchExpressions": [
                {"key": NAME, "operator": "NotIn", "values": ["shop"]}]},
             "podSelector": {"matchLabels": {"app": "client"}}},
            False, True,
        ),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}, False, False),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, False, False),  # no pod and no node is selected by it
    ],
)  # fmt: skip
def test_peers_of_a_network_policy(peer: dict[str, Any], client: bool, other: bool) -> None:
    policy = netpol({"podSelector": {}, "ingress": [{"from": [peer]}]})
    assert said([policy], CLIENT).allowed is client
    assert said([policy], OTHER).allowed is other
    if "ipBlock" not in peer:
        assert said([policy], world("203.0.113.7")).allowed is False


def test_an_ip_block_with_exceptions() -> None:
    block = {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}
    policy = netpol({"podSelector": {}, "egress": [{"to": [{"ipBlock": block}]}]})
    for address, allowed in (
        ("203.0.113.7", True),
        ("203.0.113.200", False),
        ("198.51.100.1", False),
    ):
        assert said([policy], world(address), direction="egress").allowed is allowed
    six = {"cidr": "2001:db8::/32"}
    policy = netpol({"podSelector": {}, "egress": [{"to": [{"ipBlock": six}]}]})
    assert said([policy], world("2001:db8::7"), direction="egress").allowed
    assert said([policy], world("203.0.113.7"), direction="egress").allowed is False
    assert said([policy], reserved("remote-node"), direction="egress").allowed is False


def test_ranges_and_names_of_ports() -> None:
    ports = [{"port": 8000, "endPort": 8100}, {"port": "http"}, {"port": 53, "protocol": "UDP"}]
    policy = netpol({"podSelector": {}, "ingress": [{"ports": ports}]})
    allowed = {
        port for port in (7999, 8000, 8100, 8101, 8080, 53) if said([policy], CLIENT, port).allowed
    }
    assert allowed == {8000, 8100, 8080}
    assert said([policy], CLIENT, 53, UDP).allowed
    only = netpol({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]})
    assert said([only], CLIENT, 8080).allowed
    assert said([only], CLIENT, 80).allowed is False
    unread = said([only], CLIENT, 80, own=replace(WEB, ports=None))
    assert unread.allowed is None
    assert "named ports" in unread.why
    out = netpol({"podSelector": {}, "egress": [{"ports": [{"port": "http"}]}]})
    assert said([out], WEB, 8080, direction="egress", own=CLIENT).allowed
    assert said([out], WEB, 80, direction="egress", own=CLIENT).allowed is False
    # The port's name may be that of another pod's.
    assert said([out], pod("shop", ports=()), 80, direction="egress", own=CLIENT).allowed is None


def test_rules_of_a_direction_that_policy_types_leave_out_are_undecided() -> None:
    policy = netpol({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{"to": []}]})
    answer = said([policy], world("203.0.113.7"), direction="egress")
    assert answer.allowed is None
    assert "policyTypes" in answer.why


# --- Cilium ---------------------------------------------------------------------------------------


def test_selectors_are_scoped_to_the_namespace() -> None:
    everyone = cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]})
    assert said([everyone], CLIENT).allowed
    assert said([everyone], OTHER).allowed is False
    assert said([everyone], world("203.0.113.7")).allowed is False
    assert said([everyone], CLIENT, own=OTHER).allowed  # it selects in its own namespace alone
    named = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "bank"}}
    assert said(
        [cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [named]}]})], OTHER
    ).allowed
    key = "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name"
    labelled = {"matchExpressions": [{"key": key, "operator": "Exists"}]}
    assert said(
        [cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [labelled]}]})], OTHER
    ).allowed
    account = {"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "teller"}}
    by_account = ccnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [account]}]})
    assert said([by_account], OTHER).allowed
    assert said([by_account], CLIENT).allowed is False


def test_clusterwide_wildcards_are_pods() -> None:
    policy = ccnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]})
    assert said([policy], OTHER).allowed
    assert said([policy], world("203.0.113.7")).allowed is False
    assert said([policy], reserved("remote-node")).allowed is False


def test_an_empty_rule_allows_nobody_and_no_rules_nothing_at_all() -> None:
    assert said([cnp({"endpointSelector": {}, "ingress": [{}]})], CLIENT).allowed is False
    assert said([cnp({"endpointSelector": {}, "ingress": []})], CLIENT).allowed
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
    by_port = cnp({"endpointSelector": {}, "ingress": [{"toPorts": ports}]})
    assert said([by_port], world("203.0.113.7")).allowed
    assert said([by_port], world("203.0.113.7"), 81).allowed is False
    empty = cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [], "toPorts": ports}]})
    assert said([empty], CLIENT).allowed is None  # versions differ
    assert said([empty], CLIENT, 81).allowed is False


ENTITIES = {
    "world": world("203.0.113.7"),
    "world4": world("203.0.113.7", "reserved:world-ipv4"),
    "world6": world("2001:db8::7", "reserved:world-ipv6"),
    "pod": CLIENT,
    "host": reserved("host"),
    "remote": reserved("remote-node"),
    "apiserver": reserved("kube-apiserver", "remote-node"),
    "health": reserved("health"),
    "init": reserved("init"),
    "ingress": reserved("ingress"),
}


@pytest.mark.parametrize(
    ("entity", "selected"),
    [
        ("all", set(ENTITIES)),
        ("none", set()),
        ("world", {"world", "world4", "world6"}),
        ("world-ipv4", {"world4"}),
        ("world-ipv6", {"world6"}),
        ("cluster", {"pod", "host", "remote", "apiserver", "health", "init"}),
        ("host", {"host"}),
        ("remote-node", {"remote", "apiserver"}),
        ("kube-apiserver", {"apiserver"}),
        ("health", {"health"}),
        ("init", {"init"}),
        ("ingress", {"ingress"}),
    ],
)
def test_entities(entity: str, selected: set[str]) -> None:
    policy = cnp({"endpointSelector": {}, "egress": [{"toEntities": [entity]}]})
    allowed = {
        name
        for name, other in ENTITIES.items()
        if said([policy], other, direction="egress").allowed
    }
    assert allowed == selected


def test_the_entity_cluster_is_this_cluster() -> None:
    policy = cnp({"endpointSelector": {}, "egress": [{"toEntities": ["cluster"]}]})
    far = Party(frozenset({"k8s:io.cilium.k8s.policy.cluster=east"}), outside=False)
    assert said([policy], far, direction="egress").allowed is False
    unread = replace(AROUND, cluster="")
    assert said([policy], CLIENT, direction="egress", around=unread).allowed is None
    # The entity may have the L7 load-balancer's own endpoint, by the version.
    assert said([policy], ENTITIES["ingress"], direction="egress").allowed is None


def test_a_node_is_let_in_to_its_own_pods() -> None:
    nobody = netpol({"podSelector": {}, "policyTypes": ["Ingress"]})
    assert said([nobody], ENTITIES["host"]).allowed
    assert said([nobody], ENTITIES["remote"]).allowed is False
    by_policy = Enforcement(allow_localhost=False)
    assert said([nobody], ENTITIES["host"], enforcement=by_policy).allowed is False
    unread = Enforcement(allow_localhost=None)
    assert said([nobody], ENTITIES["host"], enforcement=unread).allowed is None
    out = netpol({"podSelector": {}, "policyTypes": ["Egress"]})
    assert said([out], ENTITIES["host"], direction="egress").allowed is False
    deny = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["host"]}]})
    assert said([deny], ENTITIES["host"]).allowed is False


def test_a_deny_wins_and_switches_default_deny_on() -> None:
    ports = [{"ports": [{"port": "80"}]}]
    policy = cnp({
        "endpointSelector": {},
        "ingress": [{"fromEntities": ["all"]}],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": ports}],
    })  # fmt: skip
    answer = said([policy], CLIENT)
    assert answer.allowed is False
    assert [a.rule.place for a in answer.matching(deny=True)] == ["ingressDeny[0]"]
    assert said([policy], CLIENT, 81).allowed
    assert said([policy], OTHER).allowed
    alone = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["world"]}]})
    assert said([alone], CLIENT).allowed is False  # a policy with rules denies the rest
    off = {"enableDefaultDeny": {"ingress": False}}
    open_ = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["world"]}], **off})
    answer = said([open_], CLIENT)
    assert (answer.allowed, answer.why) == (True, "no policy that selects it denies by default")
    assert said([open_], world("203.0.113.7")).allowed is False
    on = cnp({"endpointSelector": {}, "enableDefaultDeny": {"egress": True}})
    assert said([on], CLIENT, direction="egress").allowed is False
    both = said([open_, netpol({"podSelector": {}})], CLIENT)
    assert both.allowed is False
    assert [p.title for p in both.denying_by_default] == ["NetworkPolicy shop/np"]


def test_cidrs_groups_and_exceptions() -> None:
    cidrs = [{"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}, {"cidrGroupRef": "partners"}]
    policy = cnp({"endpointSelector": {}, "egress": [{"toCIDRSet": cidrs}]})
    groups = replace(
        AROUND, groups=(CidrGroup("partners", (("kind", "good"),), (ip_network("192.0.2.0/24"),)),)
    )
    for address, allowed in (
        ("203.0.113.8", True), ("203.0.113.7", False), ("192.0.2.9", True), ("198.51.100.1", False),
    ):  # fmt: skip
        other = world(address)
        assert said([policy], other, direction="egress", around=groups).allowed is allowed
    unread = replace(AROUND, groups=None, no_groups="this user may not list ciliumcidrgroups")
    answer = said([policy], world("192.0.2.9"), direction="egress", around=unread)
    assert answer.allowed is None
    assert (
        answer.why
        == "CiliumCIDRGroup partners was not read: this user may not list ciliumcidrgroups"
    )
    # Since Cilium 1.17 the identity says in which groups it is.
    label = "cidrgroup:io.cilium.policy.cidrgroupname/partners"
    labelled = world("192.0.2.9", "reserved:world", label)
    assert said([policy], labelled, direction="egress", around=unread).allowed
    chosen = {"cidrGroupSelector": {"matchLabels": {"kind": "good"}}}
    by_labels = cnp({"endpointSelector": {}, "egress": [{"toCIDRSet": [chosen]}]})
    assert said([by_labels], world("192.0.2.9"), direction="egress", around=groups).allowed
    assert (
        said([by_labels], world("203.0.113.8"), direction="egress", around=groups).allowed is False
    )
    newer = {"matchExpressions": [{"key": "kind", "operator": "Like", "values": ["go*"]}]}
    by_other = cnp(
        {"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidrGroupSelector": newer}]}]}
    )
    answer = said([by_other], world("192.0.2.9"), direction="egress", around=groups)
    assert (answer.allowed, answer.why) == (None, "the operator “Like” is not known")
    far = said([by_other], world("198.51.100.1"), direction="egress", around=groups)
    assert far.allowed is False  # no group has it


def test_cidrs_select_nodes_where_that_is_switched_on() -> None:
    policy = cnp({"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24"]}]})
    node = ENTITIES["remote"]
    for nodes, allowed in ((False, False), (True, True), (None, None)):
        around = replace(AROUND, nodes_by_cidr=nodes)
        assert said([policy], node, direction="egress", around=around).allowed is allowed
        assert said([policy], CLIENT, direction="egress", around=around).allowed is False


def test_names_are_known_by_the_identity_or_not_at_all() -> None:
    names_ = [{"matchName": "api.example.com"}, {"matchPattern": "*.example.org"}]
    policy = cnp({"endpointSelector": {}, "egress": [{"toFQDNs": names_}]})
    cached = world("203.0.113.7", "reserved:world", "fqdn:api.example.com")
    assert said([policy], cached, direction="egress").allowed
    spelled = [{"matchName": "API.Example.com."}]
    odd = cnp({"endpointSelector": {}, "egress": [{"toFQDNs": spelled}]})
    assert said([odd], cached, direction="egress").allowed
    answer = said([policy], world("203.0.113.8"), direction="egress")
    assert answer.allowed is None
    assert "fqdn cache list" in answer.why
    assert said([policy], CLIENT, direction="egress").allowed is False


def test_icmp_types_and_ports_beside_each_other() -> None:
    fields = [{"family": "IPv4", "type": "EchoRequest"}, {"type": 3}]
    policy = cnp({"endpointSelector": {}, "ingress": [{"icmps": [{"fields": fields}]}]})
    assert said([policy], CLIENT, 8, ICMP).allowed
    assert said([policy], CLIENT, 3, ICMP).allowed
    assert said([policy], CLIENT, 0, ICMP).allowed is False
    assert said([policy], CLIENT, 128, 58).allowed is False
    assert said([policy], CLIENT, 8).allowed is False
    any_port = [{"ports": [{"port": "0", "protocol": "ANY"}]}]
    wide = cnp({"endpointSelector": {}, "ingress": [{"toPorts": any_port}]})
    assert said([wide], CLIENT, 8, ICMP).allowed is None  # versions differ
    assert said([wide], CLIENT).allowed


def test_nodes_by_their_labels() -> None:
    chosen = {"matchLabels": {"node:kubernetes.io/hostname": "n1"}}
    policy = cnp({"endpointSelector": {}, "ingress": [{"fromNodes": [chosen]}]})
    one, other = (
        Party(frozenset({"reserved:remote-node", f"node:kubernetes.io/hostname={name}"}))
        for name in ("n1", "n2")
    )
    assert said([policy], one).allowed
    assert said([policy], other).allowed is False
    unread = Party(
        frozenset({"reserved:remote-node"}), frozenset({"node:"}), "the node's labels were not read"
    )
    answer = said([policy], unread)
    assert (answer.allowed, answer.why) == (None, "the node's labels were not read")


def test_policies_of_nodes_select_nodes_alone() -> None:
    policy = ccnp({"nodeSelector": {"matchLabels": {"fw": "on"}}, "ingress": [{}]})
    host = Party(frozenset({"reserved:host", "k8s:fw=on"}))
    assert said([policy], CLIENT, own=host).allowed is False
    assert said([policy], CLIENT, own=Party(frozenset({"reserved:host"}))).allowed
    assert said([policy], CLIENT).allowed
    assert said([ccnp({"endpointSelector": {}, "ingress": [{}]})], CLIENT, own=host).allowed


# --- what leaves it undecided ---------------------------------------------------------------------


def test_unread_policies_leave_open_what_they_could_change() -> None:
    unread = Enforcement(unread=("networkpolicies of namespace shop were not read",))
    allow = cnp({"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}]})
    for these in ([], [allow], [netpol({"podSelector": {}})]):
        answer = said(these, CLIENT, enforcement=unread)
        assert (answer.allowed, answer.why) == (None, unread.unread[0])
    deny = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]})
    assert said([deny], CLIENT, enforcement=unread).allowed is False  # nothing changes that
    assert names(said([allow], CLIENT, enforcement=unread))  # the name is known all the same


def test_unread_labels_leave_open_what_they_could_change() -> None:
    unread = Party(frozenset(), frozenset({"*"}), "the labels were not read")
    policy = netpol({"podSelector": {"matchLabels": {"app": "web"}}})
    assert said([policy], CLIENT, own=unread).why == "the labels were not read"
    assert said([policy], CLIENT, own=unread).allowed is None
    assert said([policy], unread).allowed is None or said([policy], unread).allowed is False
    chosen = {"podSelector": {"matchLabels": {"app": "client"}}}
    by_label = netpol({"podSelector": {}, "ingress": [{"from": [chosen]}]})
    assert said([by_label], unread).allowed is None
    everyone = netpol({"podSelector": {}, "ingress": [{}]})
    assert said([everyone], unread).allowed


def test_settings_that_were_not_read() -> None:
    assert said([], CLIENT, enforcement=Enforcement(mode="")).allowed is None
    assert said([], CLIENT, enforcement=Enforcement(mode="always")).allowed is False
    nobody = netpol({"podSelector": {}})
    assert said([nobody], CLIENT, enforcement=Enforcement(mode="never")).allowed
    assert said([nobody], CLIENT, enforcement=Enforcement(kubernetes=False)).allowed
    assert said([nobody], CLIENT, enforcement=Enforcement(mode="")).allowed is None  # or "never"
    denied = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]})
    assert said([denied], CLIENT).allowed is False
    assert said([denied], CLIENT, enforcement=Enforcement(mode="")).allowed is None


def test_what_is_not_understood_is_undecided() -> None:
    for spec in (
        {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "fromMoon": [1]}]},
        {"endpointSelector": {}, "ingress": [{"fromGroups": [{"aws": {}}]}]},
        {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}], "tier": "Admin"},
        {"endpointSelector": {}, "nodeSelector": {}, "ingress": [{"fromEntities": ["all"]}]},
        {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": []}]}]},
        {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": {}}]}]}]},
        {"endpointSelector": {"matchExpressions": [{"key": "app", "operator": "Gt"}]},
         "ingress": [{"fromEntities": ["all"]}]},
    ):  # fmt: skip
        assert said([cnp(spec)], CLIENT).allowed is None, spec
    far = pod("shop", "app=client")
    east = replace(far, labels=far.labels - {"k8s:io.cilium.k8s.policy.cluster=default"}
                   | {"k8s:io.cilium.k8s.policy.cluster=east"})  # fmt: skip
    policy = cnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]})
    for local, allowed in ((True, False), (False, True), (None, None)):
        assert said([policy], east, around=replace(AROUND, local_cluster=local)).allowed is allowed


def test_entities_that_a_setting_widens() -> None:
    policy = cnp({"endpointSelector": {}, "egress": [{"toEntities": ["kube-apiserver"]}]})
    wider = replace(AROUND, wider=frozenset({"kube-apiserver"}))
    assert said([policy], CLIENT, direction="egress").allowed is False
    assert said([policy], CLIENT, direction="egress", around=wider).allowed is None


def test_a_policy_that_cilium_refuses_does_nothing() -> None:
    status = {"conditions": [{"type": "Valid", "status": "False", "message": "bad port"}]}
    policy = cnp({"endpointSelector": {}, "ingress": [{}]}, status=status)
    answer = said([policy], CLIENT)
    assert answer.allowed
    assert [(p.title, p.invalid) for p in answer.invalid] == [(policy.title, "bad port")]


def test_specs_of_one_policy_each_select() -> None:
    one = {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"fromEntities": ["world"]}],
    }
    two = {
        "endpointSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"fromEntities": ["all"]}],
    }
    value = {"metadata": {"namespace": "shop", "name": "many"}, "specs": [one, two]}
    policy = policies.policy(value, "CiliumNetworkPolicy")
    assert names(said([policy], world("203.0.113.7"))) == [
        "CiliumNetworkPolicy shop/many specs[0].ingress[0] (from world)"
    ]
    assert said([policy], CLIENT).allowed is False
    assert names(said([policy], CLIENT, own=pod("shop", "app=db"))) == [
        "CiliumNetworkPolicy shop/many specs[1].ingress[0] (from all)"
    ]


def test_the_nearest_rule_comes_first() -> None:
    rules = [
        {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 81}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}]},
    ]
    answer = said([netpol({"podSelector": {}, "ingress": rules})], CLIENT, 81)
    assert [a.rule.place for a in answer.lacking] == ["ingress[1]", "ingress[0]"]
