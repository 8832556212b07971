"""Who gives a Service its address for clients outside, and which node announces it.

Cilium's LB-IPAM says in a condition of the Service whether it found an address. By L2 announcements
the node that holds the Service's lease answers ARP and neighbour discovery for it; a holder that
does not renew it any more goes on to answer until its agent is back, and no other node takes over
where no other is a candidate. By BGP, and with a load-balancer of somebody else, there is no lease.

Source: Cilium operator/pkg/lbipam (`cilium.io/IPAMRequestSatisfied`), pkg/l2announcer; Kubernetes
client-go tools/leaderelection (renewTime, leaseDurationSeconds).
"""

from __future__ import annotations

from datetime import timedelta

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.path import by_bgp, commands
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.settings import config_data, setting
from kubectl_ebpfnet.model.advertisement import OF_LOAD_BALANCER
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import API, Record
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import AGENT_LABEL, Condition, Lease, Service
from kubectl_ebpfnet.model.path import Fix
from kubectl_ebpfnet.model.untrusted import moment

_SATISFIED = "cilium.io/IPAMRequestSatisfied"
_L2, _BGP = "enable-l2-announcements", "enable-bgp-control-plane"
_CLASSES = {
    "io.cilium/l2-announcer": _L2, by_bgp.CLASS: _BGP,
    "io.cilium/node": "enable-node-ipam",
}  # fmt: skip
"""Classes of Cilium's, each with the setting that serves it (operator/pkg/lbipam, cell.go;
operator/pkg/nodeipam)."""
_GIVE_POOL = Fix(
    "Give it a CiliumLoadBalancerIPPool that is not disabled, selects it and has addresses left.",
    "kubectl get ciliumloadbalancerippools -o yaml",
)
_SLACK = timedelta(seconds=60)
"""By which the clocks of a node and of this machine may differ."""
_LONGEST = 200
"""Characters of a condition's message that are shown."""


@dataclass(frozen=True, slots=True)
class Announced:
    """Who announces a Service's addresses.

    Attributes:
        node: that does, by Cilium's L2 announcements; "" where no lease says so.
        doubt: why perhaps nobody does, one clause; "" for nothing.
        fix: what to do about that.
    """

    node: str = ""
    doubt: str = ""
    fix: Fix | None = None


def lease_of(service: Service) -> str:
    """Return the name of the lease by which a node announces a Service's addresses."""
    return f"cilium-l2announce-{service.namespace}-{service.name}"


def announced(cluster: ClusterView, service: Service) -> Announced:
    """Return which node announces a Service's addresses.

    Args:
        cluster: the bundle's indexes.
        service: with an address for clients outside.
    """
    name = lease_of(service)
    addresses = few(service.outside_addresses, 2)
    lease = next((each for each in cluster.kube.leases if each.name == name), None)
    if lease is None:
        return _without_lease(cluster, service, name, addresses)
    if not lease.holder:
        return Announced("", f"no node announces {addresses}: nobody holds the lease {name}",
                         _see_policies(service))  # fmt: skip
    if lease.holder not in cluster.node_names:
        gone = f"the lease {name} is held by {lease.holder}, and there is no such node"
        doubt = f"no node is known to announce {addresses}: {gone}" if cluster.listed_nodes else ""
        return Announced("", doubt, _see_policies(service) if doubt else None)
    late = _overdue(cluster, lease)
    if late is None:
        return Announced(lease.holder)
    agents = f"-l {'='.join(AGENT_LABEL)} {commands.pods_on(lease.holder)}"
    return Announced(
        lease.holder,
        f"whether {lease.holder} still announces {addresses} is not known: it holds the lease "
        f"{name}, and did not renew it for {late.total_seconds():.0f} s (it lasts {lease.seconds} "
        "s)",
        Fix(f"See why Cilium's agent on {lease.holder} does not renew it.",
            f"kubectl get pods -A {agents}"),
    )  # fmt: skip


def unread(cluster: ClusterView, service: Service) -> str:
    """Return what leads clients outside to a Service's addresses and was not read, in words; ""
    where a lease names the node that announces them.

    Args:
        cluster: the bundle's indexes.
        service: with an address for clients outside.
    """
    if announced(cluster, service).node:
        return ""
    if setting(cluster, _BGP) == "true":
        names = [each.name for each in by_bgp.selecting(cluster, service) or ()]
        if not names:
            sessions = "and the sessions (`cilium-dbg bgp peers`)"
            return f"by BGP: which CiliumBGPAdvertisements select it, {sessions}"
        by = few(dict.fromkeys(names), 2)
        return f"by BGP: CiliumBGPAdvertisement {by} selects it, for `cilium-dbg bgp peers`"
    return "by its load-balancer, a route, or what announces it there"


def pending(cluster: ClusterView, service: Service) -> tuple[str, Fix]:
    """Return why a Service of type LoadBalancer has no address yet, and what to do.

    Args:
        cluster: the bundle's indexes.
        service: without an address for clients outside.
    """
    title = f"svc {service.namespace}/{service.name}"
    none = f"{title} has no address of a load-balancer (its EXTERNAL-IP is pending)"
    ipam = _ipam(service)
    if ipam is not None and ipam.status == "False":
        return f"{none}: {_said(ipam)}", _GIVE_POOL
    if service.load_balancer_class:
        return _pending_of_class(cluster, service, none)
    return none, Fix(
        "See who should give it one: a cloud's controller, Cilium's LB-IPAM (a "
        f"CiliumLoadBalancerIPPool), MetalLB; its events tell.{_node_ports(service)}",
        commands.describe_service(service.namespace, service.name),
    )


def not_given(service: Service, version: int) -> tuple[str, Fix] | None:
    """Return why a Service has no address of an IP version for clients outside, though it has one
    of the other; None where Cilium's LB-IPAM does not say so.

    Args:
        service: with an address for clients outside.
        version: of IP.
    """
    ipam = _ipam(service)
    if ipam is None or ipam.status != "False":
        return None
    title = f"svc {service.namespace}/{service.name}"
    has = few(service.outside_addresses, 2)
    why = f"{title} has no IPv{version} address for a client outside (it has {has}): {_said(ipam)}"
    return why, _GIVE_POOL


def _said(ipam: Condition) -> str:
    said = (ipam.message or ipam.reason)[:_LONGEST].rstrip(".")
    return f"Cilium's LB-IPAM says: {said}"


def _pending_of_class(cluster: ClusterView, service: Service, none: str) -> tuple[str, Fix]:
    """Return why a Service of a loadBalancerClass has no address: its class alone gives one."""
    named = service.load_balancer_class[:_LONGEST]
    switch = _CLASSES.get(named, "")
    describe = commands.describe_service(service.namespace, service.name)
    off = switch and config_data(cluster) is not None and setting(cluster, switch) != "true"
    if off:
        why = f"which Cilium serves only where {switch} is true"
        fix = Fix(
            f"Switch {switch} on in Cilium's settings, or make the Service anew with another "
            "loadBalancerClass, or none: it cannot be changed.",
            describe,
        )
        return f"{none}: its loadBalancerClass is {named}, {why}", fix
    others = "" if switch else ", and neither Cilium's LB-IPAM nor the cloud's controller does"
    why = f"whose controller alone gives it one{others}"
    fix = Fix(
        f"See whether the controller of the class {named} runs; its events tell."
        f"{_node_ports(service)}",
        describe,
    )
    return f"{none}: its loadBalancerClass is {named}, {why}", fix


def _node_ports(service: Service) -> str:
    has = any(port.node_port for port in service.ports)
    return " Its node ports can be asked for: node/NAME:NODEPORT." if has else ""


def _ipam(service: Service) -> Condition | None:
    return next((each for each in service.conditions if each.kind == _SATISFIED), None)


def _overdue(cluster: ClusterView, lease: Lease) -> timedelta | None:
    """Return how long ago a lease was renewed, where that is longer than it lasts; None where it is
    not, or no time tells."""
    read = max((r.started for r in cluster.bundle.at(API) if _of_leases(r)), default="")
    try:
        age = moment(read, "record") - moment(lease.renewed, "lease")
    except ParseError:
        return None
    return age if lease.seconds and age > timedelta(seconds=lease.seconds) + _SLACK else None


def _of_leases(record: Record) -> bool:
    return record.ok and record.argv[:2] == ("get", "leases")


def _without_lease(cluster: ClusterView, service: Service, name: str, addresses: str) -> Announced:
    """Doubt that an address of Cilium's own is announced where only its L2 announcements could."""
    ipam = _ipam(service)
    if ipam is None or ipam.status != "True" or not service.ingress_addresses:
        return Announced()
    by_l2 = setting(cluster, _L2) == "true"
    if setting(cluster, _BGP) == "true":
        if by_bgp.selecting(cluster, service) != [] or (by_l2 and not _is_no_lease(cluster, name)):
            return Announced()
        return _not_advertised(service, addresses, f" and no lease {name} is there" * by_l2)
    if not by_l2:
        return Announced()
    if not _is_no_lease(cluster, name):
        return Announced()
    return Announced(
        "",
        f"no node is known to announce {addresses}: Cilium's LB-IPAM gave it, only L2 "
        f"announcements are switched on, and there is no lease {name}",
        _see_policies(service),
    )


def _not_advertised(service: Service, addresses: str, also: str) -> Announced:
    title = f"svc {service.namespace}/{service.name}"
    why = f"no CiliumBGPAdvertisement selects {title} for {OF_LOAD_BALANCER}"
    if service.load_balancer_class not in ("", by_bgp.CLASS):
        why = (
            f"Cilium advertises none of its loadBalancerClass "
            f"{service.load_balancer_class[:_LONGEST]}"
        )
    return Announced(
        "",
        f"no node is known to announce {addresses}: Cilium's LB-IPAM gave it, {why}{also}",
        Fix(
            f"Give {title} labels that an advertisement of type Service selects, with "
            f"{OF_LOAD_BALANCER} among its addresses.",
            "kubectl get ciliumbgpadvertisements -o yaml",
        ),
    )


def _is_no_lease(cluster: ClusterView, name: str) -> bool:
    """Tell whether the lease, or every one of the agents, was asked for, and it is not there."""
    asked = (r for r in cluster.bundle.at(API) if r.argv[:2] == ("get", "leases"))
    missing = any(r.argv[-1] == name and r.error.endswith("not found") for r in asked)
    of_agents = {agent.namespace for agent in cluster.index.agents.values()}
    return missing or any(lists.read(cluster, "leases", each) is not None for each in of_agents)


def _see_policies(service: Service) -> Fix:
    return Fix(
        f"See whether a CiliumL2AnnouncementPolicy selects {service.namespace}/{service.name} "
        "(serviceSelector, loadBalancerIPs or externalIPs) and nodes with a device of its "
        "interfaces.",
        "kubectl get ciliuml2announcementpolicies -o yaml",
    )
