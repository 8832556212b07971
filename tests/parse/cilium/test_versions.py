"""The same facts as every version of Cilium prints them.

The samples lie under samples/cilium-<version>/format: by the formats of cilium-facts 2, not printed
by a run (samples/README.md). What was recorded of real agents is in test_cilium.py.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium import Backend, Frontend, LocalEndpoint, PolicyEntry
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP, Flow
from kubectl_ebpfnet.parse.cilium import agent, ct, lb, maps, nat, policy
from kubectl_ebpfnet.parse.cilium import config as cilium_config
from tests.parse.parse_samples import every, line_at, sample

POD = ip_address("10.244.0.213")
WORLD = ip_address("1.0.0.1")
NODE = ip_address("172.18.0.2")
ANY_PORT = (0, 65535)

CT = (
    CtEntry(
        Flow(TCP, POD, 46486, WORLD, 80), "OUT", expires=17755044,
        flags=frozenset({"RxClosing", "TxClosing", "SeenNonSyn"}),
        tx_flags_seen=0x13, rx_flags_seen=0x1B, packets=10, bytes=1029, rev_nat=7,
        source_identity=42837, last_tx_report=17755035, last_rx_report=17755035,
    ),
    CtEntry(
        Flow(UDP, POD, 43210, ip_address("10.96.0.10"), 53), "SVC", expires=17755104, packets=6,
        bytes=415, rev_nat=3, last_tx_report=17755044, last_rx_report=0,
    ),
    CtEntry(
        Flow(ICMP, POD, 51724, WORLD, None), "OUT", expires=17753923, packets=4, bytes=392,
        source_identity=42837, last_tx_report=17753864, last_rx_report=17753864,
    ),
    CtEntry(
        Flow(ICMP, POD, None, WORLD, None), "OUT", related=True, expires=17755093,
        flags=frozenset({"SeenNonSyn"}), tx_flags_seen=2, packets=1, bytes=74,
        source_identity=42837, last_tx_report=17755035, last_rx_report=0,
    ),
    CtEntry(
        Flow(TCP, ip_address("fd00::2"), 4000, ip_address("fd00::1"), 80), "IN", expires=17755044,
        flags=frozenset({"SeenNonSyn"}), tx_flags_seen=2, packets=10, bytes=1029,
        source_identity=42837, last_tx_report=17755035, last_rx_report=0,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "remaining", "counted", "backend"),
    [
        ("cilium-1.9/format/bpf-ct-list-global", [None] * 5, True, 0),
        ("cilium-1.14/format/bpf-ct-list-global-d", [21576, 60, -11, 4, 21576], True, 0),
        ("cilium-1.16/format/bpf-ct-list-global-d", [7976, 60, -11, 4, 7976], True, 5),
        ("cilium-1.19/format/bpf-ct-list-global-d", [7976, 60, -11, 4, 7976], False, 5),
    ],
)
def test_conntrack(path: str, remaining: list[int | None], counted: bool, backend: int) -> None:
    data = sample(path)
    entries = every(ct.entry, data)
    expected = [
        replace(entry, remaining=left, backend_id=backend if entry.direction == "SVC" else 0)
        for entry, left in zip(CT, remaining, strict=True)
    ]
    if not counted:  # accounting is off by default since 1.17: zeros say nothing
        expected = [replace(entry, packets=None, bytes=None) for entry in expected]
    assert list(entries) == expected


@pytest.mark.parametrize(
    ("version", "out", "service", "received", "echo", "error"),
    [
        # jiffies / 256 at 250 Hz
        ("1.9.8", 16786616, 16786616, 16786650, 16786594, 16786617),
        ("1.13.7", 9474, 9471, 9524, 9470, 9480),
        ("1.18", 9114, 9114, 9044, 9050, 9050),
    ],
)
def test_reports_of_real_agents(
    version: str, out: int, service: int, received: int, echo: int, error: int
) -> None:
    """Requests of OUT and SVC entries are sent, those of IN entries are received."""
    found = every(ct.entry, sample(f"cilium-{version}/vxlan-node2/bpf-ct-list-global"))
    seen = [(e.direction, e.last_request, e.last_reply) for e in found]
    way = "IN" if version == "1.18" else "OUT"
    assert seen == [
        ("OUT", out, out),
        ("SVC", service, 0),
        ("IN", received, received),
        ("IN", echo, echo),
        (way, error, 0),
    ]
    assert [e.request_flags for e in found][:2] == [0x1B, 0x1B]
    assert found[4].related


NAT = (
    NatEntry(Flow(TCP, POD, 46486, WORLD, 80), "OUT", NODE, 46486),
    NatEntry(Flow(TCP, WORLD, 80, NODE, 46486), "IN", POD, 46486),
    NatEntry(Flow(ICMP, POD, 51724, WORLD, None), "OUT", NODE, 51724),
    NatEntry(Flow(ICMP, WORLD, None, NODE, 51724), "IN", POD, 51724),
    NatEntry(Flow(UDP, NODE, 40000, WORLD, 53), "OUT", NODE, 40000, needs_ct=True),
    NatEntry(
        Flow(TCP, ip_address("fd00::1"), 4000, ip_address("fe00::"), 80),
        "OUT", ip_address("fd01::2"), 4000,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "age"),
    [
        ("cilium-1.10/format/bpf-nat-list", None),
        ("cilium-1.15/format/bpf-nat-list", 12),
        ("cilium-1.15/format/bpf-nat-list-without-a-clock", None),
    ],
)
def test_nat(path: str, age: int | None) -> None:
    data = sample(path)
    entries = every(nat.entry, data)
    assert entries == tuple(replace(e, age=age) for e in NAT)
    out, back = entries[0], entries[1]
    assert out.translated().reversed() == back.flow
    assert back.translated().reversed() == out.flow


def frontends(protocol: int | None, slots: bool) -> set[Frontend]:
    """The services of the samples, as far as a version tells."""

    def backend(address: str, port: int, slot: int) -> Backend:
        return Backend(ip_address(address), port, protocol, slot=slot if slots else 0)

    inner = frozenset({"non-routable"})
    return {
        Frontend(ip_address("10.96.0.1"), 443, protocol, False, "ClusterIP", inner, 1,
                 (backend("10.0.0.2", 8443, 1),)),
        Frontend(ip_address("192.0.2.7"), 80, protocol, True, "LoadBalancer", frozenset({"Local"}),
                 2, (backend("10.0.0.7", 8080, 1), backend("10.0.0.8", 8080, 2))),
        Frontend(ip_address("fd00::a"), 443, protocol, False, "ClusterIP", inner, 3,
                 (backend("fd00::2", 8443, 1),)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "protocol", "slots"),
    [("1.9", None, False), ("1.14", None, True), ("1.16", None, True), ("1.17", TCP, True)],
)
def test_the_load_balancer(version: str, protocol: int | None, slots: bool) -> None:
    data = sample(f"cilium-{version}/format/bpf-lb-list")
    found = lb.frontends(data)
    said = {replace(frontend, proxy_port=0, unresolved=0) for frontend in found}
    assert said == frontends(protocol, slots)
    assert {(f.proxy_port, f.unresolved) for f in found} == (
        {(15001, 0), (0, 1), (0, 0)} if version == "1.16" else {(0, 0)}
    )
    for frontend in found:  # its line is that of the row that has its flags
        assert f"[{frontend.type}" in line_at(data, frontend.span.line)
        for backend in frontend.backends:
            assert str(backend.address) in line_at(data, backend.span.line)


def test_a_backend_of_another_cluster() -> None:
    """Format of clustermesh (cilium-facts 2.3): the cluster's number stands behind the address."""
    (found,) = lb.frontends(b"10.0.0.1:1/TCP (1)   10.0.0.2@3:80/TCP (1) (1)\n")
    assert found.backends == (Backend(ip_address("10.0.0.2"), 80, TCP, slot=1),)


POLICY = (
    PolicyEntry(123, False, "ingress", 0, 0, ANY_PORT, packets=3633, bytes=446824),
    PolicyEntry(123, False, "egress", 2, TCP, (80, 80), packets=10, bytes=1029),
    PolicyEntry(123, True, "egress", 42837, UDP, (53, 53), 15001, packets=0, bytes=0),
    PolicyEntry(123, False, "egress", 7, TCP, (443, 443), packets=1, bytes=5),
)


@pytest.mark.parametrize(
    "path",
    [
        "cilium-1.9/format/bpf-policy-get--all-n",
        "cilium-1.9/format/bpf-policy-get--all-o-json",
        "cilium-1.14/format/bpf-policy-get--all-n",
        "cilium-1.14/format/bpf-policy-get--all-o-json",
    ],
)
def test_policy(path: str) -> None:
    data = sample(path)
    entries = policy.entries(data)
    assert entries == POLICY
    for entry in entries:
        if not entry.span.path:
            assert line_at(data, entry.span.line).startswith(("Allow", "Deny"))


def test_policy_by_labels() -> None:
    """Reserved identities are known by their labels, one by two of them; a pod's is not."""
    entries = policy.entries(sample("cilium-1.9/format/bpf-policy-get--all"))
    assert [e.identity for e in entries] == [0, 2, -1, 7]
    assert entries[2].labels == ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=default")
    assert [replace(e, labels=(), identity=0) for e in entries] == [
        replace(e, identity=0) for e in POLICY
    ]


def test_policy_rows_of_newest_versions() -> None:
    """Upstream's own encoder printed this entry (cilium-facts 2.6, executed; main)."""
    entry = (
        b'{"ProxyPortNetwork":0,"Flags":0,"AuthRequirement":0,"Precedence":0,"Cookie":0,'
        b'"Packets":18446744073709551615,"Bytes":18446744073709551615,"Key":{"Prefixlen":64,'
        b'"Identity":5,"TrafficDirection":1,"Nexthdr":6,"DestPortNetwork":20480}}'
    )
    block = b'[{"EndpointID":"9","Path":"/x/cilium_policy_v2_00009","Content":[%s]}]' % entry
    (found,) = policy.entries(block)
    assert found == PolicyEntry(9, False, "egress", 5, TCP, (80, 80), precedence=0)
    assert (found.packets, found.bytes) == (None, None)


@pytest.mark.parametrize(
    ("bits", "ports"),
    [(40, ANY_PORT), (48, ANY_PORT), (64, (8080, 8080)), (60, (8080, 8095)), (49, (0, 32767))],
)
def test_a_prefix_of_ports(bits: int, ports: tuple[int, int]) -> None:
    """The key's prefix length leaves out the port's last bits (cilium-facts 3.8)."""
    key = b'{"Prefixlen":%d,"Identity":1,"TrafficDirection":0,"Nexthdr":6,"DestPortNetwork":36895}'
    data = b'[{"EndpointID":"9","Path":"p","Content":[{"Flags":1,"Key":%s}]}]' % (key % bits)
    (entry,) = policy.entries(data)
    assert entry.ports == ports
    assert entry.deny


def test_a_path_in_a_label_is_no_new_endpoint() -> None:
    data = (
        b"Endpoint ID: 1\n"
        b"POLICY   DIRECTION   LABELS (source:key[=value])   PORT/PROTO   PROXY PORT   BYTES\n"
        b"Allow    Egress      k8s:a=b                       ANY          NONE         1\n"
        b"                     k8s:/x/cilium_policy_00077                                 \n"
        b"Allow    Egress      reserved:host                 ANY          NONE         1\n"
    )
    one, two = policy.entries(data)
    assert one.labels == ("k8s:a=b", "k8s:/x/cilium_policy_00077")
    assert (one.endpoint_id, two.endpoint_id, two.identity) == (1, 1, 1)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\nPOLICY   DIRECTION\nAllow    Egress\n", 2),
        (b"Endpoint ID: 1\n\nAllow    Egress   1\n", 3),
        (b"/x/cilium_policy_00009:\n\n[\n  {\n    oops\n", 5),
        (b"Endpoint ID: one\n", 1),
        (b"/x/cilium_policy_" + b"9" * 5000 + b":\n", 1),
        (b'[{"Path": "x", "Content": []}]', 0),
    ],
)
def test_what_is_no_policy_names_its_line(data: bytes, line: int) -> None:
    with pytest.raises(ParseError) as caught:
        policy.entries(data)
    assert caught.value.line == line


def test_metrics() -> None:
    expected = (
        MetricRow("Policy denied", "egress", 12, 888),
        MetricRow("Success", "ingress", 1633, 138240),
    )
    assert maps.metrics(sample("cilium-1.9/format/bpf-metrics-list")) == expected


def test_the_endpoints_map_between_the_versions() -> None:
    """≥ 1.14 has IPv6 keys without brackets, and sec_id (format of cilium-facts 2.4)."""
    data = (
        b"IP ADDRESS    LOCAL ENDPOINT INFO\n"
        b"fd00::1:0     id=1234  sec_id=42837 flags=0x0001 ifindex=12  mac=0A:00:00:00:00:01 "
        b"nodemac=0B:00:00:00:00:02\n"
    )
    assert maps.endpoint_map(data) == (
        LocalEndpoint(ip_address("fd00::1"), True, 1234, 42837, 12, "0a:00:00:00:00:01",
                      "0b:00:00:00:00:02"),
    )  # fmt: skip


def test_go_prints_an_empty_list_as_null() -> None:
    """Recorded of `bpf auth list -o json`; any list of Go is printed so while it is nil."""
    parsers = (agent.endpoints, agent.nodes, agent.identities, lb.services, policy.entries)
    for parser in parsers:
        assert parser(b"null\n") == ()  # type: ignore[operator]


def test_words_of_versions_to_come_are_let_be() -> None:
    line = b"VRRP OUT 1.1.1.1:0 -> 2.2.2.2:0 expires=1 NatAddr=1.2.3.4 Some=[x] RevNAT=2 "
    entry = ct.entry(line, 1)
    assert entry is not None
    assert (entry.flow.protocol, entry.expires, entry.rev_nat) == (112, 1, 2)


@pytest.mark.parametrize("host", [b"fe80::1%eth0", b"fe80::1%\x1b[31m", b"10.0.0.1.2", b""])
def test_an_address_is_nothing_but_an_address(host: bytes) -> None:
    with pytest.raises(ParseError):
        ct.entry(b"TCP OUT " + host + b":1 -> 2.2.2.2:2 expires=1", 1)


def test_numbers_are_of_bounded_length() -> None:
    """Python refuses to read more than 4300 digits, with an error of its own."""
    row = b"10.0.0.1:1   0.0.0.0:0 (" + b"9" * 5000 + b") [ClusterIP]\n"
    with pytest.raises(ParseError):
        lb.frontends(row)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Replacing kube-proxy brings socket load-balancing, whatever its own key says.
        ({"kube-proxy-replacement": "true", "bpf-lb-sock": "false"}, True),
        ({"kube-proxy-replacement": "strict"}, True),
        ({"kube-proxy-replacement": "false", "bpf-lb-sock": "true"}, True),
        ({"kube-proxy-replacement": "false", "bpf-lb-sock": "false"}, False),
        ({"kube-proxy-replacement": "disabled", "bpf-lb-sock": "true"}, False),
        ({"kube-proxy-replacement": "false"}, None),
        ({"bpf-lb-sock": "false"}, None),
        ({"kube-proxy-replacement": "probe", "enable-host-reachable-services": "true"}, True),
    ],
)
def test_socket_load_balancing(settings: dict[str, str], expected: bool | None) -> None:
    assert cilium_config.datapath(settings).socket_lb is expected


def test_settings_whose_value_goes_on_in_the_next_line() -> None:
    data = b"hubble-metrics    dns\ndrop:sourceContext=pod\nmasquerade        true\n"
    assert cilium_config.settings(data) == {
        "hubble-metrics": "dns drop:sourceContext=pod",
        "masquerade": "true",
    }
    with pytest.raises(ParseError):
        cilium_config.settings(b"Error: no such context\n")


def test_keys_that_name_no_device_or_only_wish() -> None:
    config = cilium_config.datapath({"devices": "eth0,ens+ eth1", "enable-tcx": "true"})
    assert config.devices == ("eth0", "eth1")
    assert config.attach_mode == ""
    assert cilium_config.datapath({"enable-tcx": "false"}).attach_mode == "tc"
    # Half of what decides masquerading decides nothing.
    assert cilium_config.datapath({"enable-bpf-masquerade": "true"}).masquerade == ""
