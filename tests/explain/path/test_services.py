"""Services that lead nowhere, elsewhere or by kube-proxy, each on a recorded cluster."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle
from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    say,
    without,
)
from tests.explain.path.variants import edit, host_network, json_edit, says

# ruff: noqa: E501 -- what programs print in one line stays in one line here


SERVICES, LB = "cilium-dbg service list -o json", "cilium-dbg bpf lb list"
CT = "cilium-dbg bpf ct list global -d"


def untracked(text: str) -> str:
    """Conntrack without the flows that were load-balanced."""
    return "".join(line for line in text.splitlines(True) if "RevNAT=2" not in line)


def no_backends(value: object) -> None:
    """The agent's list of a service that nothing is behind: `backend-addresses` is null."""
    if isinstance(value, dict):
        if "backend-addresses" in value:
            value["backend-addresses"] = None
        for below in value.values():
            no_backends(below)
    elif isinstance(value, list):
        for below in value:
            no_backends(below)


def unmapped(text: str) -> str:
    """The map without the slots of pod web."""
    return "".join(line for line in text.splitlines(True) if "10.244.0.135" not in line)


def test_a_service_that_nothing_is_behind() -> None:
    bundle = changed(VXLAN, json_edit("node2", SERVICES, no_backends), edit("node2", LB, unmapped))
    path = ask(bundle, "client", "svc/web:80")
    hop = dropped_at(path)
    assert (hop.kind, hop.number) == ("load-balancing", 1)
    assert says(bundle, hop.evidence, "0.0.0.0:0 (2) (0) [ClusterIP, non-routable]")
    found = finding(path, "svc default/web has no ready backend")
    assert "Cilium on node2 is behind its EndpointSlices" in found.detail
    assert "10.244.0.135:8080, ready" in path.cause


def test_a_map_that_lacks_what_the_agent_lists() -> None:
    """New connections go by the map, whatever `service list` says."""
    path = ask(changed(VXLAN, edit("node2", LB, unmapped)), "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert finding(path, "the datapath of node2 lacks a backend").severity == "error"


def test_a_backend_that_kubernetes_no_longer_has() -> None:
    old = [
        edit("node2", command, lambda text: text.replace("10.244.0.251", "10.244.0.252"))
        for command in (SERVICES, LB)
    ]
    path = ask(changed(NATIVE, *old, edit("node2", CT, untracked)), "client", "svc/web")
    found = finding(path, "still has a backend that no EndpointSlice names: 10.244.0.252:8080")
    assert found.severity == "error"
    assert "no endpoint has 10.244.0.252 on node1" in dropped_at(path).summary


def moved_service(*more: Change) -> Bundle:
    """The recorded SVC and OUT entries lead to pod web; the service has moved to another pod."""
    moved = [
        edit(at, command, lambda text: text.replace("10.244.0.251", "10.244.0.252"))
        for at, command in (("node2", SERVICES), ("node2", LB), ("api", "get endpointslices"))
    ]
    return changed(NATIVE, *moved, *more)


def test_a_new_connection_goes_to_a_backend_of_now() -> None:
    path = ask(moved_service(), "client", "svc/web")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert (hop.state, str(hop.packet.flow.destination)) == ("derived", "10.244.0.252")
    assert path.attempt is None  # what was answered was another backend
    assert not [hop for hop in path.hops if hop.kind == "conntrack"]
    assert not [one for one in path.findings if "no longer a backend" in one.title]  # it is over


def test_an_open_connection_stays_with_a_backend_that_is_gone() -> None:
    def still_open(text: str) -> str:
        return (
            text.replace("RxClosing ", "")
            .replace("TxClosing ", "")
            .replace("remaining: -", "remaining: ")
        )

    bundle = moved_service(edit("node2", CT, still_open))
    found = finding(
        ask(bundle, "client", "svc/web"), "goes to 10.244.0.251:8080, no longer a backend"
    )
    assert found.severity == "warning"
    assert says(bundle, found.evidence, "TCP SVC 10.244.1.53:38510 -> 10.96.71.229:80")


def test_kube_proxys_translation_seen_in_nf_conntrack_alone() -> None:
    """Cilium knows neither the service nor the flow; netfilter translated it."""
    line = ("ipv4     2 tcp      6 97 TIME_WAIT src=10.244.1.53 dst=10.96.71.229 sport=38511 dport=80 "
            "src=10.244.0.251 dst=10.244.1.53 sport=8080 dport=38511 [ASSURED] mark=0 zone=0 use=2\n")  # fmt: skip
    bundle = changed(
        NATIVE,
        say("node2", SERVICES, "[]"),
        say("node2", LB, ""),
        edit("node2", CT, untracked),
        edit("node2", "cat /proc/net/nf_conntrack", lambda text: line + text),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert (hop.place, hop.state) == ("node", "unknown")  # when it was answered is not known
    assert "10.244.0.251:8080 by netfilter's rules of kube-proxy" in hop.summary
    assert says(bundle, hop.evidence, "dst=10.96.71.229 sport=38511")
    assert path.hops[-1].where == "default/web"


def test_a_cluster_address_that_nothing_translates_is_not_delivered() -> None:
    """Without kube-proxy and kube-proxy replacement, a hostNetwork pod has no services."""
    path = ask(changed(NATIVE, host_network("10.244.1.53"), without("client")), "client", "svc/web")
    assert path.verdict == "unknown"
    assert "no rule of iptables translates it" in path.reason
