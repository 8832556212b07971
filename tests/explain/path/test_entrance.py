"""By which nodes a client outside enters, by the objects of the API; and who is none."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.path.announced import unread
from kubectl_ebpfnet.explain.path.destinations import far_address
from kubectl_ebpfnet.explain.path.entrance import MOST, WaysIn, ways_in
from kubectl_ebpfnet.explain.path.sender import check_outside, sender_of
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import API, Bundle, Record, bundle_of
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    ADDRESSES6,
    VIP,
    VIP6,
    api,
    cluster,
    config,
    endpoint,
    node,
    on,
    pod,
    service,
)

CLIENT = ip_address("203.0.113.9")
EXCLUDED = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}


def asked(destination: str = "svc/web-lb", via: str = "", **more: Any) -> PathRequest:
    kind, _, name = destination.rpartition("/")
    kinds = {"svc": "service", "": "address"}
    found = {
        "destination_kind": kinds.get(kind, kind),
        "destination_namespace": "default" if kind else "",
        "destination_name": name if kind else "",
        "destination_address": None if kind else ip_address(name),
        **more,
    }
    return PathRequest(
        "203.0.113.9", "", "", destination, protocol=TCP, source_kind="address",
        source_address=CLIENT, via=via, **found,
    )  # fmt: skip


def entered(bundle: Bundle, destination: str = "svc/web-lb", via: str = "") -> WaysIn:
    return ways_in(ClusterView(bundle), asked(destination, via))


def test_a_load_balancers_address_leads_to_each_node_that_it_may_use() -> None:
    nodes = (node("n1", labels=EXCLUDED), node("n2"), node("n3"))
    found = entered(cluster(service("Cluster"), endpoint("n3"), nodes=nodes))
    assert found.nodes == ("n3", "n2")  # the node of the endpoint first
    assert [each.node for each in found.closed] == ["n1"]
    assert "exclude-from-external-load-balancers" in found.closed[0].why
    by_address = entered(cluster(service("Cluster"), endpoint("n3"), nodes=nodes), VIP)
    assert by_address == found


def test_nodes_whose_health_check_fails_are_not_entered() -> None:
    found = entered(cluster(service("Local"), endpoint("n1"), endpoint("n2", ready=False)))
    assert found.nodes == ("n1",)
    assert {each.node for each in found.closed} == {"n2", "n3"}
    # Without a health check (external IPs) nobody leaves a node out.
    web = service("Local", ingress=[], externalIPs=["198.51.100.9"], healthCheckNodePort=0)
    assert set(entered(cluster(web, endpoint("n1"))).nodes) == {"n1", "n2", "n3"}


def test_without_endpoint_slices_no_node_is_said_to_be_closed_or_open() -> None:
    verb = "list endpointslices.discovery.k8s.io in namespace default"
    denied = Record(0, API, ("get", "endpointslices"), None, error="forbidden", denied=verb)
    found = entered(cluster(service("Local"), more=(denied,)))
    assert (found.nodes, found.unchecked) == (("n1", "n2", "n3"), verb)
    assert found.why.endswith(f"which ones their health checks close was not read ({verb})")
    assert not entered(cluster(service("Cluster"), more=(denied,))).unchecked


def test_where_no_health_check_succeeds_each_node_says_why() -> None:
    found = entered(cluster(service("Local"), endpoint("n1", ready=False, serving=False)))
    assert set(found.nodes) == {"n1", "n2", "n3"}
    assert found.closed == ()


def test_a_node_port_leads_to_each_node() -> None:
    web = service("Local", type="NodePort", ingress=[])
    found = entered(cluster(web, endpoint("n2"), nodes=(node("n1", labels=EXCLUDED), node("n2"))))
    assert set(found.nodes) == {"n1", "n2"}
    assert found.why == "each node takes it in"


def test_a_big_cluster_is_bounded_and_says_how_many_are_left_out() -> None:
    many = []
    for number in range(2000):
        one = node("n1")
        one["metadata"]["name"] = f"w{number:04}"
        one["status"]["addresses"] = [{"type": "InternalIP", "address": f"10.0.{number // 250}.1"}]
        many.append(one)
    web = service("Cluster")
    end = {**endpoint("n1"), "nodeName": "w1234"}
    records = (on("w0777", "ip -j addr", "[]"),)
    found = entered(cluster(web, end, nodes=tuple(many), more=records))
    assert len(found.nodes) == MOST
    assert found.closed == ()
    assert found.nodes[:2] == ("w0777", "w1234")  # what was recorded, then where an endpoint is
    assert found.left_out == 2000 - MOST
    local = entered(cluster(service("Local"), end, nodes=tuple(many)))
    assert local.nodes == ("w1234",)
    assert (len(local.closed), local.more_closed) == (MOST, 1999 - MOST)


@pytest.mark.parametrize(
    ("destination", "nodes"),
    [
        ("node/n2", ("n2",)),
        (ADDRESSES["n3"], ("n3",)),
        ("pod/web-n1", ("n1",)),
        ("10.244.1.5", ("n1",)),
        ("10.244.2.200", ("n2",)),  # of its pod CIDR
    ],
)
def test_an_address_of_the_cluster_leads_to_its_node(
    destination: str, nodes: tuple[str, ...]
) -> None:
    assert (
        entered(cluster(service(), endpoint("n1"), pods=(pod("n1"),)), destination).nodes == nodes
    )


def test_what_nobody_outside_can_send_to_is_said() -> None:
    inner = service("", type="ClusterIP", ingress=[], ports=[{"port": 80, "protocol": "TCP"}])
    found = entered(cluster(inner, endpoint("n1")))
    assert (found.nodes, found.problem) == (
        (), "svc default/web-lb is a ClusterIP Service: it has no address that a client outside "
        "can send to",
    )  # fmt: skip
    nobodys = entered(cluster(service(), endpoint("n1")), "198.51.100.99")
    assert "nobody in the cluster is known to have 198.51.100.99" in nobodys.problem
    assert nobodys.fix is not None
    assert "--via" in nobodys.fix.text


def test_addresses_that_are_nodes_own_lead_to_these() -> None:
    """As those that k3s' load-balancer gives a Service."""
    web = service("Cluster", ingress=[{"ip": ADDRESSES["n3"]}, {"ip": ADDRESSES["n1"]}])
    bundle = cluster(web, endpoint("n2"))
    found = entered(bundle)
    assert found.nodes == ("n3", "n1")
    view = ClusterView(bundle)
    for name in found.nodes:
        far = far_address(view, asked(), sender_of(view, asked(), name))
        assert (str(far.address), far.port) == (ADDRESSES[name], 80)


@pytest.mark.parametrize(
    "ingress", [{"hostname": "lb.example.com"}, {"ip": VIP, "ipMode": "Proxy"}]
)
def test_a_load_balancer_that_sends_to_node_ports(ingress: dict[str, str]) -> None:
    """By a name, as AWS gives one, or in place of the client (KEP-1860)."""
    nodes = (node("n1"), node("n2"), node("n3", labels=EXCLUDED))
    bundle = cluster(service("Local", ingress=[ingress]), endpoint("n2"), nodes=nodes)
    found = entered(bundle)
    assert found.nodes == ("n2",)
    assert {each.node for each in found.closed} == {"n1", "n3"}
    view = ClusterView(bundle)
    far = far_address(view, asked(), sender_of(view, asked(), "n2"))
    assert (str(far.address), far.port) == (ADDRESSES["n2"], 30080)
    assert "to which load-balancer" in far.note


@pytest.mark.parametrize(
    ("client", "address", "own"),
    [("203.0.113.9", VIP, ADDRESSES["n1"]), ("2001:db8:9::9", VIP6, ADDRESSES6["n1"])],
)
def test_a_client_has_the_address_of_its_ip_version(client: str, address: str, own: str) -> None:
    nodes = tuple(node(name, dual=True) for name in ADDRESSES)
    both = service("Cluster", ingress=[{"ip": VIP}, {"ip": VIP6}])
    for web, far in (
        (both, (address, 80)),
        (service("", type="NodePort", ingress=[]), (own, 30080)),
    ):
        view = ClusterView(cluster(web, endpoint("n1"), nodes=nodes))
        request = replace(asked(), source_address=ip_address(client))
        assert set(ways_in(view, request).nodes) == set(ADDRESSES)
        found = far_address(view, request, sender_of(view, request, "n1"))
        assert (str(found.address), found.port) == far


def lease(holder: str, name: str = "cilium-l2announce-default-web-lb") -> Record:
    return api("leases", {
        "kind": "Lease", "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
    })  # fmt: skip


@pytest.mark.parametrize("destination", ["svc/web-lb", VIP])
def test_a_lease_names_the_node_that_announces_the_address(destination: str) -> None:
    def by(one: Record) -> WaysIn:
        return entered(cluster(service("Local"), endpoint("n1"), more=(one,)), destination)

    found = by(lease("n3"))  # it has no endpoint: L2 announcements look at none
    assert (found.nodes, found.closed) == (("n3",), ())
    assert "cilium-l2announce-default-web-lb" in found.why
    for other in (lease(""), lease("n9"), lease("n3", "cilium-l2announce-default-other")):
        assert by(other).nodes == ("n1",)


NOW = "2026-11-30T06:00:00Z"
L2 = {"enable_l2_announcements": "true", "enable_bgp_control_plane": "false"}


def leased(holder: str, renewed: str = "2026-11-30T05:59:55.123456Z") -> Record:
    """The Service's lease, as it was read at NOW."""
    record = api("leases", {
        "kind": "Lease",
        "metadata": {"name": "cilium-l2announce-default-web-lb", "namespace": "kube-system"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
    })  # fmt: skip
    return replace(record, started=NOW)


@pytest.mark.parametrize(
    ("one", "nodes", "doubt"),
    [
        (leased("n3"), ("n3",), ""),
        (leased("n3", "2026-11-30T05:58:50Z"), ("n3",), ""),  # clocks may differ by that
        (leased("n3", "2026-11-30T05:50:00Z"), ("n3",), "and did not renew it for 600 s (it lasts"),
        (leased("n3", "yesterday"), ("n3",), ""),
        (leased(""), ("n1", "n2", "n3"), f"no node announces {VIP}: nobody holds the lease"),
        (leased("n9"), ("n1", "n2", "n3"), "is held by n9, and there is no such node"),
    ],
)
def test_a_lease_that_nobody_renews_is_a_doubt(
    one: Record, nodes: tuple[str, ...], doubt: str
) -> None:
    found = entered(cluster(service("Cluster"), endpoint("n1"), more=(one,)))
    assert found.nodes == nodes
    assert doubt in found.doubt
    assert bool(found.doubt) == bool(doubt) == (found.fix is not None)


NO_LEASE = Record(
    0, API, ("get", "leases", "-n", "kube-system", "cilium-l2announce-default-web-lb"), None,
    error='lease "cilium-l2announce-default-web-lb" not found',
)  # fmt: skip


def ipam(status: str, message: str = "", **spec: Any) -> dict[str, Any]:
    """The Service with what Cilium's LB-IPAM says of it."""
    web = service("Cluster", **spec)
    web["status"]["conditions"] = [
        {"type": "cilium.io/IPAMRequestSatisfied", "status": status, "reason": "x",
         "message": message},
    ]  # fmt: skip
    return web


@pytest.mark.parametrize(
    ("web", "settings", "lease_read", "doubted"),
    [
        (ipam("True"), L2, NO_LEASE, True),
        (ipam("True"), L2, replace(NO_LEASE, error="forbidden"), False),
        (ipam("True"), L2 | {"enable_bgp_control_plane": "true"}, NO_LEASE, False),
        (ipam("True"), {}, NO_LEASE, False),  # announced by a router, or by somebody else
        (service("Cluster"), L2, NO_LEASE, False),  # MetalLB's address, beside Cilium's L2
    ],
)
def test_an_address_that_only_l2_could_announce_and_no_lease(
    web: dict[str, Any], settings: dict[str, str], lease_read: Record, doubted: bool
) -> None:
    found = entered(cluster(web, endpoint("n1"), settings=config(**settings), more=(lease_read,)))
    assert found.nodes == ("n1", "n2", "n3")
    assert ("there is no lease cilium-l2announce-default-web-lb" in found.doubt) is doubted
    assert (found.fix is not None) is doubted


def test_an_address_of_one_version_where_the_pools_of_the_other_are_exhausted() -> None:
    said = "All pools are exhausted for IPv6"
    asks = replace(asked(), source_address=ip_address("2001:db8::9"), source="2001:db8::9")
    found = ways_in(ClusterView(cluster(ipam("False", said), endpoint("n1"))), asks)
    assert found.nodes == ()
    assert found.problem == (
        f"svc default/web-lb has no IPv6 address for a client outside (it has {VIP}): Cilium's "
        f"LB-IPAM says: {said}"
    )
    assert found.fix is not None
    assert found.fix.command == "kubectl get ciliumloadbalancerippools -o yaml"
    assert entered(cluster(ipam("False", said), endpoint("n1"))).nodes == ("n1", "n2", "n3")


BGP = {"enable_bgp_control_plane": "true"}


def advertised(selector: dict[str, Any] | None, *addresses: str, of: str = "Service") -> Record:
    """A CiliumBGPAdvertisement of Services, or of pods' prefixes."""
    one = {"advertisementType": of, "service": {"addresses": list(addresses)}}
    return api("ciliumbgpadvertisements", {
        "kind": "CiliumBGPAdvertisement", "metadata": {"name": "edge"},
        "spec": {"advertisements": [one if selector is None else {**one, "selector": selector}]},
    })  # fmt: skip


LABELLED = ipam("True", labels={"bgp": "yes"})
WITH_LABEL = {"matchLabels": {"bgp": "yes"}}
BY_NAME = {"matchExpressions": [
    {"key": "io.kubernetes.service.name", "operator": "In", "values": ["web-lb"]}]}  # fmt: skip
ODD = {"matchExpressions": [{"key": "bgp", "operator": "Like", "values": ["y*"]}]}


@pytest.mark.parametrize(
    ("web", "settings", "more", "doubted"),
    [
        (LABELLED, BGP, advertised(WITH_LABEL, "LoadBalancerIP"), False),
        (LABELLED, BGP, advertised(BY_NAME, "ExternalIP", "LoadBalancerIP"), False),
        (LABELLED, BGP, advertised({}, "LoadBalancerIP"), False),
        (LABELLED, BGP, advertised(ODD, "LoadBalancerIP"), False),
        (LABELLED, BGP, advertised(WITH_LABEL, "ExternalIP"), True),
        (LABELLED, BGP, advertised(None, "LoadBalancerIP"), True),
        (ipam("True"), BGP, advertised(WITH_LABEL, "LoadBalancerIP"), True),
        (ipam("True"), BGP, advertised(None, of="PodCIDR"), False),  # by older objects, perhaps
        (ipam("True"), BGP, NO_LEASE, False),  # they were not listed
        (service("Cluster"), BGP, advertised(WITH_LABEL, "LoadBalancerIP"), False),  # not Cilium's
        (ipam("True", loadBalancerClass="example.com/x"), BGP, advertised({}, "LoadBalancerIP"),
         True),
        (ipam("True"), L2 | BGP, advertised(WITH_LABEL, "LoadBalancerIP"), False),  # lease unread
        (ipam("True"), {}, advertised(WITH_LABEL, "LoadBalancerIP"), False),
    ],
)  # fmt: skip
def test_an_address_that_only_bgp_could_announce_and_no_advertisement(
    web: dict[str, Any], settings: dict[str, str], more: Record, doubted: bool
) -> None:
    found = entered(cluster(web, endpoint("n1"), settings=config(**settings), more=(more,)))
    assert found.nodes == ("n1", "n2", "n3")
    assert bool(found.doubt) is doubted
    if doubted:
        assert found.doubt.startswith(f"no node is known to announce {VIP}: Cilium's LB-IPAM gave")
        assert found.fix is not None
        assert found.fix.command == "kubectl get ciliumbgpadvertisements -o yaml"


def test_the_advertisement_that_selects_an_address_is_named() -> None:
    more = (advertised(WITH_LABEL, "LoadBalancerIP"),)
    view = ClusterView(cluster(LABELLED, endpoint("n1"), settings=config(**BGP), more=more))
    (web,) = view.kube.services
    assert unread(view, web) == (
        "by BGP: CiliumBGPAdvertisement edge selects it, for `cilium-dbg bgp peers`"
    )


def test_a_load_balancer_without_an_address_is_pending() -> None:
    said = "There are no enabled CiliumLoadBalancerIPPools that match this service"
    found = entered(cluster(ipam("False", said, ingress=[]), endpoint("n1")))
    assert found.nodes == ()
    assert found.problem.endswith(f"(its EXTERNAL-IP is pending): Cilium's LB-IPAM says: {said}")
    assert found.fix is not None
    assert "CiliumLoadBalancerIPPool" in found.fix.text
    cloud = entered(cluster(service("Cluster", ingress=[]), endpoint("n1")))
    assert cloud.problem == (
        "svc default/web-lb has no address of a load-balancer (its EXTERNAL-IP is pending)"
    )
    assert cloud.fix is not None
    assert cloud.fix.command == "kubectl describe service -n default web-lb"
    # A name, an external IP, and a NodePort's Service are no pending address; nor is --via.
    for web in (
        service("Cluster", ingress=[{"hostname": "lb.example.test"}]),
        service("Cluster", ingress=[], externalIPs=["198.51.100.9"]),
        service("Cluster", ingress=[], type="NodePort"),
    ):
        assert entered(cluster(web, endpoint("n1"))).nodes == ("n1", "n2", "n3")
    assert entered(cluster(service("Cluster", ingress=[]), endpoint("n1")), via="n2").nodes == (
        "n2",
    )


@pytest.mark.parametrize(
    ("of_class", "settings", "said", "fix"),
    [
        ("io.cilium/bgp-control-plane", {},
         "which Cilium serves only where enable-bgp-control-plane is true", "Switch enable-bgp"),
        ("io.cilium/bgp-control-plane", {"enable_bgp_control_plane": "true"},
         "whose controller alone gives it one", "See whether the controller of the class io.cil"),
        ("service.k8s.aws/nlb", {},
         "whose controller alone gives it one, and neither Cilium's LB-IPAM nor the cloud's",
         "See whether the controller of the class service.k8s.aws/nlb runs"),
    ],
)  # fmt: skip
def test_a_class_of_load_balancers_that_nobody_serves(
    of_class: str, settings: dict[str, str], said: str, fix: str
) -> None:
    web = service("Cluster", ingress=[], loadBalancerClass=of_class)
    found = entered(cluster(web, endpoint("n1"), settings=config(**settings)))
    assert found.nodes == ()
    assert f"(its EXTERNAL-IP is pending): its loadBalancerClass is {of_class}, " in found.problem
    assert said in found.problem
    assert found.fix is not None
    assert found.fix.text.startswith(fix)


def test_without_node_ports_a_load_balancer_can_send_to_pods_alone() -> None:
    """allocateLoadBalancerNodePorts: false; it has an address all the same."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    there = [{"hostname": "lb.example.test"}]
    found = entered(cluster(service("Cluster", ingress=there, ports=ports), endpoint("n1")))
    assert found.nodes == ()
    assert (
        "has no node ports, so its load-balancer lb.example.test can send to its" in found.problem
    )
    pending = entered(cluster(service("Cluster", ingress=[], ports=ports), endpoint("n1")))
    assert pending.problem.endswith("(its EXTERNAL-IP is pending)")
    assert pending.fix is not None
    assert "NODEPORT" not in pending.fix.text


def test_an_address_on_every_node_is_still_the_services() -> None:
    """As IPVS and a load-balancer that is no proxy put it on each node."""
    said = json.dumps([{"ifname": "kube-ipvs0", "addr_info": [
        {"family": "inet", "local": VIP, "prefixlen": 32, "scope": "global"}]}])  # fmt: skip
    records = tuple(on(name, "ip -j addr", said) for name in ADDRESSES)
    found = entered(cluster(service("Cluster"), endpoint("n2"), more=records), VIP)
    assert found.nodes == ("n2", "n1", "n3")


def test_via_names_the_node() -> None:
    bundle = cluster(service("Local"), endpoint("n1"))
    assert entered(bundle, via="n3").nodes == ("n3",)
    assert entered(bundle, "198.51.100.99", via="n2").nodes == ("n2",)
    with pytest.raises(NotFound) as caught:
        entered(bundle, via="n9")
    assert caught.value.hint == "nodes are n1, n2, n3"


def test_a_client_of_another_ip_version_is_to_have_another_address() -> None:
    asks = replace(asked("node/n1"), source_address=ip_address("2001:db8::9"), source="2001:db8::9")
    view = ClusterView(cluster(service("Local"), endpoint("n1")))
    found = far_address(view, asks, sender_of(view, asks))
    assert found.fix is not None
    assert found.fix.text == "Give an IPv4 address of the client's."


@pytest.mark.parametrize(
    ("address", "who", "hint"),
    [
        ("10.244.1.5", "pod default/web-n1", "pod/web-n1"),
        (ADDRESSES["n2"], "node n2", "path node/n2"),
        (ADDRESSES6["n2"], "node n2", "path node/n2"),
        (VIP, "svc default/web-lb", "pod/NAME"),
        ("10.96.0.7", "svc default/web-lb", "pod/NAME"),
    ],
)
def test_an_address_of_the_cluster_is_no_client_outside(address: str, who: str, hint: str) -> None:
    nodes = tuple(node(name, dual=True) for name in ADDRESSES)
    view = ClusterView(cluster(service(), endpoint("n1"), nodes=nodes, pods=(pod("n1"),)))
    with pytest.raises(UsageError) as caught:
        check_outside(view, ip_address(address))
    assert f"{who} has it" in caught.value.message
    assert hint in caught.value.hint
    with pytest.raises(UsageError, match=r"in the pod CIDR 10\.244\.2\.0/24"):
        check_outside(view, ip_address("10.244.2.77"))
    check_outside(view, CLIENT)


def test_a_node_sends_from_its_own_addresses() -> None:
    view = ClusterView(bundle_of([api("nodes", node("n1", dual=True))]))
    request = PathRequest(
        "node/n1", "", "n1", "1.1.1.1", "address", TCP, source_kind="node"
    )  # fmt: skip
    found = sender_of(view, request)
    assert (found.node, found.host_network, found.outside) == ("n1", True, False)
    assert [str(each) for each in found.addresses] == [ADDRESSES["n1"], ADDRESSES6["n1"]]
    missing = PathRequest("node/n9", "", "n9", "1.1.1.1", "address", TCP, source_kind="node")
    with pytest.raises(NotFound):
        sender_of(view, missing)
