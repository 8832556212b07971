"""Destinations of another kind: many receivers, one link, nobody's ClusterIP, the other version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import API, Bundle, InMemory, Record, pod_place
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import POLICY, VXLAN, changed
from tests.explain.path.variants import json_edit

SIX = {"client": "fd00:10:244:1::1", "web": "fd00:10:244::87"}
POD = pod_place("default", "client")


def ask(bundle: Bundle, destination: str, version: int | None = None) -> Path:
    there = arguments.destination(destination)
    number = arguments.protocol("", there)
    sender = arguments.source("client")
    return explain(arguments.request(sender, there, number, "default", "", version), bundle)


def dual_stack() -> Bundle:
    """Pods, nodes and the Service with an address of each IP version."""

    def second(value: dict[str, Any]) -> None:
        for pod in value["items"]:
            if pod["metadata"]["name"] in SIX:
                pod["status"]["podIPs"].append({"ip": SIX[pod["metadata"]["name"]]})

    def clusters(value: dict[str, Any]) -> None:
        for service in value["items"]:
            if service["metadata"]["name"] == "web":
                service["spec"]["clusterIPs"] = ["10.96.51.4", "fd00:96::4"]

    return changed(
        VXLAN, json_edit("api", "get pods", second), json_edit("api", "get services", clusters)
    )


def service_cidrs(*cidrs: str) -> Record:
    item = {"kind": "ServiceCIDR", "metadata": {"name": "x"}, "spec": {"cidrs": list(cidrs)}}
    value = {"kind": "List", "items": [item]}
    return Record(0, API, ("get", "servicecidrs"), 0, InMemory(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("destination", "says"),
    [
        ("224.0.0.251:80", "TCP has no multicast: connect() to 224.0.0.251 fails with ENETUNREACH"),
        ("255.255.255.255:80", "TCP has no broadcast: connect() to 255.255.255.255 fails"),
        ("ff02::fb", "TCP has no multicast: connect() to ff02::fb fails with ENETUNREACH"),
        ("fe80::1", "without a zone (%eth0) connect() fails with EINVAL"),
    ],
)
def test_what_the_senders_kernel_refuses(destination: str, says: str) -> None:
    path = ask(dual_stack(), destination)
    assert path.verdict == "dropped"
    assert says in path.reason
    [hop] = path.hops
    assert (hop.place, hop.kind, hop.drops) == ("pod", "socket", True)


@pytest.mark.parametrize(
    ("destination", "kind"),
    [("224.0.0.251:5353/udp", "multicast"), ("255.255.255.255:67/udp", "broadcast"),
     ("224.0.0.1/icmp", "multicast")],
)  # fmt: skip
def test_a_packet_to_many_is_not_followed(destination: str, kind: str) -> None:
    path = ask(changed(VXLAN), destination)
    assert path.verdict == "unknown"
    assert f"is a {kind} address: its packets go to every receiver on the link" in path.reason
    assert path.fix is not None
    assert "capture" not in path.fix.command


def test_a_link_local_address_is_said_to_be_one() -> None:
    path = ask(changed(VXLAN), "169.254.169.254:80")
    [finding] = path.findings
    assert finding.title == "169.254.169.254 is a link-local address"


def test_an_address_of_the_service_range_that_no_service_has() -> None:
    known = changed(VXLAN, more=(service_cidrs("10.96.0.0/16", "fd00:96::/112"),))
    path = ask(known, "10.96.44.44:80")
    assert path.verdict == "unknown"
    assert "10.96.44.44 is in the Service range 10.96.0.0/16, and no Service has it" in path.reason
    assert [(f.severity, f.evidence != ()) for f in path.findings] == [("error", True)]
    # Outside of the range, or at a Service, nothing is said.
    assert ask(known, "10.97.0.1:80").findings == ()
    assert ask(known, "10.96.51.4:80").verdict in ("delivered", "reachable")
    of_other_port = ask(known, "10.96.51.4:81")
    assert not any("no Service has it" in f.title for f in of_other_port.findings)


def test_without_the_range_only_the_neighbours_are_named() -> None:
    path = ask(changed(VXLAN), "10.96.44.44:80")
    assert path.verdict == "leaves"
    [finding] = path.findings
    assert finding.severity == "warning"
    assert "lies between the ClusterIPs 10.96.0.1 and 10.96.51.4" in finding.title
    assert ask(changed(VXLAN), "10.95.0.1:80").findings == ()


@pytest.mark.parametrize(
    ("destination", "version", "address"),
    [
        ("pod/web:8080", None, "10.244.0.135"),
        ("pod/web:8080", 6, SIX["web"]),
        ("pod/web:8080", 4, "10.244.0.135"),
        ("svc/web", 6, "fd00:96::4"),
        ("svc/web", None, "10.96.51.4"),
        (f"[{SIX['web']}]:8080", None, SIX["web"]),
    ],
)
def test_the_ip_version(destination: str, version: int | None, address: str) -> None:
    path = ask(dual_stack(), destination, version)
    assert str(path.destination.address) == address
    assert path.source.address is not None
    assert path.source.address.version == (6 if ":" in address else 4)


def test_a_version_that_an_end_lacks() -> None:
    path = ask(changed(VXLAN), "pod/web:8080", 6)
    assert path.verdict == "unknown"
    assert path.reason.startswith("pod default/web has no IPv6 address (it has 10.244.0.135)")
    assert path.fix is not None
    assert path.fix.text == "Leave -6 out."
    node = ask(dual_stack(), "node/node1", 6)
    assert node.reason.startswith("node node1 has no IPv6 address (it has 172.30.0.11)")
    other = ask(changed(VXLAN), "[2001:db8::1]:80")
    assert other.reason.startswith("the source pod has no IPv6 address")
    assert other.fix is not None


def test_icmp_to_a_second_address_is_icmpv6() -> None:
    path = ask(dual_stack(), "pod/web/icmp", 6)
    assert path.protocol == 58
    assert ask(dual_stack(), "pod/web/icmp").protocol == 1


def test_a_node_without_a_port_is_the_node() -> None:
    path = ask(changed(VXLAN), "node/node1")
    assert path.reason.startswith("the tables let it through to node node1")


def test_the_only_port_of_a_service_is_named() -> None:
    assert ask(changed(VXLAN), "10.96.51.4").destination.port == 80


def said(*words: str, out: bytes = b"", code: int = 0) -> Record:
    return Record(0, POD, words, code, InMemory(out))


def dns(server: str, nslookup: bytes, scenario: str = VXLAN, name: str = "db") -> Bundle:
    conf = f"search default.svc.cluster.local\nnameserver {server}\noptions ndots:5\n".encode()
    return changed(
        scenario,
        lambda r: None if (r.place, r.argv) == (POD, ("cat", "/etc/resolv.conf")) else r,
        more=(
            said("cat", "/etc/resolv.conf", out=conf),
            said("getent", "ahosts", name, code=2),
            said("nslookup", f"{name}.default.svc.cluster.local.", out=nslookup, code=1),
        ),
    )


SILENT = b";; connection timed out; no servers could be reached\n"


def test_the_way_to_a_silent_nameserver_is_the_cause() -> None:
    path = ask(dns("10.244.0.135", SILENT), "db:5432")
    assert path.verdict == "unknown"
    assert path.hops == ()
    assert path.reason.startswith(
        "db was not resolved: nameserver 10.244.0.135 of pod default/client did not answer; "
        "DNS: 10.244.0.135:53/UDP: "
    )
    assert path.because[1].startswith("its query to 10.244.0.135:53/UDP: ")
    assert path.fix is not None
    assert path.fix.command == ("kubectl ebpfnet path -n default pod/client 10.244.0.135:53/udp")


def test_a_query_that_is_dropped_is_the_verdict() -> None:
    path = ask(dns("10.244.0.135", SILENT, POLICY), "db:5432")
    assert path.verdict == "dropped"
    assert path.drop is not None
    assert path.hops[path.drop.hop - 1].drops
    assert path.cause.startswith("DNS: 10.244.0.135:53/UDP: dropped at hop ")
    assert "egress policy denies" in path.cause
    assert any(f.title.startswith("DNS: policy drops the packet") for f in path.findings)
    assert path.destination.title == "db"


def test_an_object_that_a_bare_word_may_mean_stays_said_beside_the_nameserver() -> None:
    silent = dns("10.244.0.135", SILENT, name="web")
    fix = ask(silent, "web:80").fix
    assert fix is not None
    assert fix.text.startswith("web alone is taken for a DNS name. Did you mean svc/web:80")
    assert fix.text.endswith("? See the way of the pod's queries to its nameserver, hop by hop.")
    assert fix.command == "kubectl ebpfnet path -n default pod/client svc/web:80"
    dropped = ask(dns("10.244.0.135", SILENT, POLICY, name="web"), "web:80").fix
    assert dropped is not None
    assert dropped.text.startswith("web alone is taken for a DNS name. Did you mean svc/web:80")
    assert dropped.command.endswith("pod/client 10.244.0.135:53/udp")


def test_a_nameserver_that_answers_is_not_walked_to() -> None:
    path = ask(dns("10.96.51.4", b"** server can't find db: NXDOMAIN\n"), "db:5432")
    assert "db does not exist" in path.reason
    assert "DNS:" not in path.reason


def test_a_nameserver_that_no_service_has() -> None:
    path = ask(dns("10.96.44.44", SILENT), "db:5432")
    assert [f.title for f in path.findings] == [
        "DNS: 10.96.44.44 lies between the ClusterIPs 10.96.0.1 and 10.96.51.4, and no Service has "
        "it"
    ]
