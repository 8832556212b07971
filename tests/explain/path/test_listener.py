"""The socket at the end of the way: who listens, who does not, and what a person would edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.destinations import destination
from kubectl_ebpfnet.explain.path import endpoints
from kubectl_ebpfnet.explain.path.services import ServiceAddress
from kubectl_ebpfnet.explain.path.stages import listener
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.path.wrong_port import Remedy, Unmet, remedy
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import (
    InMemory,
    Record,
    agent_place,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.kube import ContainerPort, Pod, Service, ServicePort
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import Hop, HopKind, HopPlace, Outcome, Packet, State, Verdict
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol import codec
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import (
    VXLAN,
    ask,
    changed,
    could_not,
    dropped_at,
    finding,
    swap,
)
from tests.explain.path.variants import json_edit

WEB = pod_place("default", "web")
ANY, ANY6, LOOPBACK, POD = "0.0.0.0", "::", "127.0.0.1", "10.244.0.135"


def socket(address: str, port: int, **more: Any) -> Listener:
    return Listener(ip_address(address), port, **more)


def by_node_pod(place: Any, *sockets: Listener, fact: Any = q.TCP_LISTENERS) -> Record:
    """What a node pod says of the sockets of a place."""
    said = b"".join(codec.line_of(one) for one in sockets)
    return Record(0, place, fact.node_argv, 0, InMemory(said))


def by_grep(place: Any, *rows: str, protocol: str = "tcp") -> Record:
    """What grep printed there: rows of /proc/net/tcp, and of tcp6 behind a 6."""
    fact = q.TCP_LISTENERS if protocol == "tcp" else q.UDP_SOCKETS
    lines = []
    for file in (protocol, f"{protocol}6"):
        lines.append(f"/proc/net/{file}:  sl  local_address rem_address   st tx_queue rx_queue")
        zero = "0" * (32 if file.endswith("6") else 8)
        state = "0A" if protocol == "tcp" else "07"
        own = [row.removeprefix("6") for row in rows if row.startswith("6") == ("6" in file)]
        lines += [
            f"/proc/net/{file}:   0: {row} {zero}:0000 {state} 00000000:00000000" for row in own
        ]
    return Record(0, place, fact.forms[0], 0, InMemory("\n".join(lines).encode()))


def to(destination: str, *more: Record, protocol: str = "tcp") -> Answer:
    return ask(changed(VXLAN, more=more), "pod/client", destination, protocol)


@pytest.fixture
def never_answered() -> Iterator[None]:
    """Nothing tells what came back to the newest attempt."""
    with attempt(500.0, Outcome.UNKNOWN):
        yield


def with_objects(record: Record, old: str, new: str, to: str = "svc/web") -> Answer:
    """The answer where the API's objects say something else."""
    records = [
        replace(one, stdout=InMemory(one.stdout.read().replace(old.encode(), new.encode())))
        if one.place.kind == "api"
        else one
        for one in changed(VXLAN, more=(record,)).records
    ]
    return ask(bundle_of(records, VXLAN), "pod/client", to)


def refused(answer: Answer) -> Hop:
    """The hop at the socket that drops."""
    hop = dropped_at(answer)
    assert (hop.place, hop.kind, hop.where) == ("pod", "socket", "default/web")
    assert answer.drop is not None
    assert answer.drop.how == "derived"
    return hop


@pytest.mark.parametrize(
    "record",
    [
        by_node_pod(WEB, socket(ANY, 8080, backlog=128)),
        by_node_pod(WEB, socket(POD, 8080, backlog=128)),
        by_node_pod(WEB, socket(ANY6, 8080, v6_only=False, backlog=128)),
        by_node_pod(WEB, *[socket(ANY, 8080, backlog=5)] * 4),
        by_node_pod(WEB, socket(ANY, 8080, device="eth0", backlog=1, waiting=1)),
        by_node_pod(WEB, socket(ANY6, 8080, v6_only=True), socket(ANY, 8080)),
        by_grep(WEB, "00000000:1F90"),
        by_grep(WEB, "8700F40A:1F90"),
        by_grep(WEB, f"6{'0' * 32}:1F90"),
    ],
)
@pytest.mark.parametrize("age", [5.0, 500.0])
def test_whatever_takes_it_is_shown_and_nothing_is_said_against_it(
    record: Record, age: float
) -> None:
    with attempt(age):
        answer = to("svc/web", record)
    assert answer.verdict == ("delivered" if age < 60 else "reachable"), answer.reason
    assert "presumed" not in answer.reason
    hop = answer.hops[-1]
    assert (hop.kind, hop.drops) == ("socket", False)
    assert "listens on TCP" in hop.summary
    assert hop.evidence
    assert not [one for one in answer.findings if one.severity != "info"]


def test_the_pod_is_to_mend_where_it_declares_the_port(never_answered: None) -> None:
    answer = to("svc/web", by_node_pod(WEB, socket(ANY, 8081)))
    assert "no socket of pod default/web takes TCP 10.244.0.135:8080" in refused(answer).summary
    assert answer.cause == (
        "svc default/web sends port 80 to targetPort 8080; nothing of pod default/web listens "
        "there; it listens on 8081; its containers declare 8080"
    )
    # The containers declare the Service's port: the program is what does not keep its word.
    assert answer.drop is not None
    assert answer.drop.object == "Pod default/web"
    assert answer.fix is not None
    assert answer.fix.command == "kubectl logs -n default web"


def test_the_service_is_to_edit_where_the_pod_declares_another_port(
    never_answered: None,
) -> None:
    record = by_grep(WEB, "00000000:1F91")
    answer = with_objects(record, '"containerPort": 8080', '"containerPort": 8081')
    refused(answer)
    assert answer.cause.endswith("it listens on 8081; its containers declare 8081")
    assert answer.drop is not None
    assert answer.drop.object == "Service default/web"
    assert answer.fix is not None
    assert answer.fix.text == "Set targetPort of port 80 to 8081 in Service web."
    assert answer.fix.command == "kubectl edit svc -n default web"


@pytest.mark.parametrize(
    ("record", "cause", "fix"),
    [
        (by_node_pod(WEB, socket(LOOPBACK, 8080)),
         "listens on 127.0.0.1:8080 only, which is reached from inside", "Bind the process to 0.0"),
        (by_grep(WEB, "0100007F:1F90", f"6{'0' * 24}01000000:1F90"),
         r"listens on 127.0.0.1:8080, [::1]:8080 only", "Bind the process to 0.0.0.0 or to 10.244"),
        (by_node_pod(WEB, socket(ANY6, 8080, v6_only=True)),
         "listens on [::]:8080 (IPv6 only) only, which takes no IPv4", "clear IPV6_V6ONLY"),
        (by_node_pod(WEB, socket("fd00::7", 8080, v6_only=False)),
         "listens on [fd00::7]:8080 only, which takes no IPv4", "listen on 0.0.0.0 as well"),
        (by_node_pod(WEB, socket("10.99.0.1", 8080)), "listens on 10.99.0.1:8080 only", "Bind"),
        (by_node_pod(WEB, socket(ANY, 8080, device="net1")), "on net1 only", "Bind"),
        (by_node_pod(WEB), "it listens at no TCP port of 10.244.0.135", "Make a process"),
    ],
)  # fmt: skip
def test_why_no_socket_takes_it(never_answered: None, record: Record, cause: str, fix: str) -> None:
    answer = to("pod/web:8080", record)
    refused(answer)
    assert cause in answer.cause
    assert answer.fix is not None
    assert fix in answer.fix.text
    assert finding(answer, answer.cause).severity == "error"


def test_udp_without_a_socket_is_refused_by_icmp() -> None:
    record = by_grep(WEB, "0100007F:0035", protocol="udp")
    answer = to("pod/web:53", record, protocol="udp")
    assert "refused with ICMP port unreachable" in refused(answer).summary
    healthy = to("pod/web:53", by_grep(WEB, "00000000:0035", protocol="udp"), protocol="udp")
    assert healthy.verdict != "dropped"


def test_a_connected_udp_socket_takes_from_its_peer_alone() -> None:
    def connected(peer: str) -> Answer:
        one = socket(POD, 53, peer=ip_address(peer), peer_port=4000)
        record = by_node_pod(WEB, one, fact=q.UDP_SOCKETS)
        return to("pod/web:53", record, protocol="udp")

    assert connected("10.244.1.160").verdict != "dropped"
    assert refused(connected("10.244.1.9"))


@pytest.mark.parametrize(
    ("age", "outcome"),
    [(5.0, Outcome.ANSWERED), (500.0, Outcome.ANSWERED), (5.0, Outcome.UNANSWERED)],
)
def test_a_full_accept_queue_drops_until_somebody_accepts(age: float, outcome: Outcome) -> None:
    full = by_node_pod(WEB, socket(ANY, 8080, backlog=1, waiting=2))
    with attempt(age, outcome):
        answer = to("svc/web", full)
    assert refused(answer)
    assert answer.verdict == "dropped", answer.reason
    title = "the process of pod default/web at 0.0.0.0:8080 does not accept connections"
    found = finding(answer, title)
    assert "2 connections wait for accept(), at most 1 may" in found.detail
    assert found.severity == "error"
    assert answer.fix is not None
    assert answer.fix.command == "kubectl logs -n default web"


def test_one_full_queue_of_two_leaves_it_open() -> None:
    record = by_node_pod(WEB, socket(ANY, 8080, backlog=1, waiting=2), socket(ANY, 8080, backlog=1))
    with attempt(500.0):
        assert to("svc/web", record).verdict == "unknown"
    with attempt(5.0):
        assert to("svc/web", record).verdict == "delivered"


def test_how_full_a_queue_is_proc_does_not_tell() -> None:
    row = by_grep(WEB, "00000000:1F90")
    said = row.stdout.read().replace(b"00000000:00000000", b"00000000:00000007")
    waiting = Record(0, WEB, row.argv, 0, InMemory(said))
    with attempt(500.0):
        assert to("svc/web", waiting).verdict == "reachable"
    with attempt(5.0, Outcome.UNANSWERED):
        answer = to("svc/web", waiting)
    assert answer.verdict == "unknown"
    assert "which holds 7 connections, has room" in answer.reason


def test_sockets_that_were_not_read_are_presumed_and_said() -> None:
    with attempt(500.0):
        answer = to("svc/web")
        assert answer.verdict == "reachable"
        assert "a listener there is presumed" in answer.reason
        assert "the capture lacks them" in answer.reason
        assert "--node-access pod" in answer.reason
        why = "the image has no shell, and none of grep"
        assert f"({why}; " in to("svc/web", could_not(WEB, why)).reason
    with attempt(5.0, Outcome.UNANSWERED):
        assert "the sockets of pod default/web" in to("svc/web").reason
    with attempt(5.0):
        assert "presumed" not in to("svc/web").reason


@pytest.mark.parametrize("age", [5.0, 500.0])
def test_what_was_answered_without_a_socket_is_not_known(age: float) -> None:
    """The process ended since, or a rule in the pod redirects the packet to another port."""
    with attempt(age):
        answer = to("svc/web", by_node_pod(WEB, socket(ANY, 9090)))
    assert answer.verdict == "unknown", answer.reason
    assert "no socket of pod default/web takes TCP 10.244.0.135:8080, but TCP" in answer.reason
    assert "the process ended since, or something redirects" in answer.cause
    with attempt(5.0, Outcome.REFUSED):
        answer = to("svc/web", by_node_pod(WEB, socket(ANY, 9090)))
    assert answer.drop is not None
    assert (answer.verdict, answer.drop.how, answer.hops[-1].kind) == ("dropped", "seen", "socket")


@pytest.mark.parametrize("age", [5.0, 500.0])
def test_a_mesh_may_redirect_it(age: float) -> None:
    record = by_node_pod(WEB, socket(ANY, 15006), socket(LOOPBACK, 9000))
    with attempt(age):
        answer = to("svc/web", record)
    assert answer.verdict == ("delivered" if age < 60 else "unknown")
    assert age < 60 or "0.0.0.0:15006 is a port of Istio" in answer.cause


def test_netfilter_in_the_pod_may_lead_it_to_another_port() -> None:
    there = destination("pod/web:8080")
    asked = arguments.request(arguments.source("pod/client"), there, TCP, "default", "")
    cluster = ClusterView(changed(VXLAN, more=(by_node_pod(WEB, socket(ANY, 9090)),)))
    walk = PathBuilder(cluster, endpoints.resolve(cluster, asked))
    packet = Packet(walk.ends.flow)
    here, pod = PacketState(Stage.ENDPOINT, packet, "node1"), cluster.pod("default", "web")
    assert pod is not None
    rule = (HopPlace.POD, "default/web", "node1", HopKind.NAT)
    walk.hop(*rule, "to port 9090 of the pod", State.DERIVED, packet)
    assert listener.in_pod(walk, here, pod)
    assert walk.hops[-1].state == "unknown"
    assert "netfilter in the pod sends it elsewhere first" in walk.hops[-1].reason


def test_another_network_stack_has_sockets_of_its_own() -> None:
    old, new = '"nodeName"', '"runtimeClassName":"gvisor","nodeName"'
    with attempt(500.0, Outcome.UNKNOWN):
        answer = with_objects(by_node_pod(WEB), old, new)
        by_exec = with_objects(by_grep(WEB), old, new)
    assert answer.verdict == "unknown"
    assert "RuntimeClass gvisor" in answer.cause
    assert by_exec.verdict == "dropped"  # the pod's own kernel said so


def test_refused_when_it_was_last_tried_and_a_listener_now() -> None:
    with attempt(500.0, Outcome.REFUSED):
        assert to("svc/web").verdict == "unknown"
        assert to("svc/web", by_node_pod(WEB, socket(ANY, 8080))).verdict == "reachable"
    with attempt(5.0, Outcome.REFUSED):
        answer = to("svc/web", by_node_pod(WEB, socket(ANY, 8080)))
    assert answer.verdict == "dropped"
    assert "a process listens at TCP 10.244.0.135:8080 now" in answer.cause


@pytest.mark.parametrize("place", [node_place("node1"), agent_place("node1")])
def test_a_nodes_own_socket(place: Any) -> None:
    def answer(*sockets: Listener) -> Answer:
        if place.kind == "node":
            record = by_node_pod(place, *sockets)
        else:
            rows = ("00000000:280A",) if sockets else ()
            record = by_grep(place, *rows)
        return to("node/node1:10250", record)

    reached = answer(socket(ANY, 10250))
    assert reached.verdict == "reachable", reached.reason
    assert reached.hops[-1].summary == "node node1 listens on TCP 0.0.0.0:10250"
    lost = answer()
    hop = dropped_at(lost)
    assert (hop.place, hop.kind) == ("node", "socket")
    assert lost.fix is not None
    assert lost.fix.text.startswith("Start what should listen at TCP 172.30.0.11:10250 on node")


def test_what_may_take_a_nodes_packet_without_a_socket() -> None:
    nothing = by_node_pod(node_place("node1"))
    port = '"containerPort": 8080'
    leads = with_objects(nothing, port, f'{port}, "hostPort": 8126', "node/node1:8126")
    assert leads.verdict == "unknown"
    assert "it is a hostPort of pod default/web, whose rule was not met" in leads.cause
    with attempt(500.0, Outcome.UNKNOWN):
        port = '"nodePort": '
        leads = with_objects(nothing, f"{port}32479", f"{port}31234", "node/node1:31234")
    assert leads.verdict == "unknown"
    assert "it is a node port of svc default/web-lb, not translated" in leads.cause
    device = swap("node1", "ip -j -d link", '"ifname":"cilium_net"', '"ifname":"kube-ipvs0"')
    ipvs = ask(changed(VXLAN, device, more=(nothing,)), "pod/client", "node/node1:9")
    assert ipvs.verdict == "unknown"
    assert "IPVS, whose table was not read, may take it" in ipvs.cause
    said = InMemory(codec.line_of(Attachment("sk_lookup", "", "pick")))
    program = Record(0, node_place("node1"), q.ATTACHMENTS.node_argv, 0, said)
    assert "a program at sk_lookup may choose" in to("node/node1:9", nothing, program).reason


@pytest.mark.parametrize(
    ("destination", "listens", "verdict"),
    [("127.0.0.1:8080", LOOPBACK, "reachable"), ("127.0.0.1:8080", "10.244.1.160", "dropped"),
     ("10.244.1.160:8080", LOOPBACK, "dropped"), ("10.244.1.160:8080", ANY, "reachable")],
)  # fmt: skip
def test_a_pod_that_asks_itself(destination: str, listens: str, verdict: str) -> None:
    record = by_node_pod(pod_place("default", "client"), socket(listens, 8080))
    answer = to(destination, record)
    assert answer.verdict == verdict, answer.reason
    assert answer.hops[-1].kind == "socket"


# --- what to edit ---------------------------------------------------------------------------------


def unmet(*sockets: Listener, target: str = "8080", declares: tuple[int, ...] = ()) -> Remedy:
    """The remedy for a packet over IPv6 that a Service sent to port 8080 of a pod."""
    v6, port = ip_address("fd00::9"), ServicePort("", TCP, 80, target)
    owner = Service("shop", "cart", "ClusterIP", (), (port,))
    service = ServiceAddress(
        v6, 80, TCP, "ClusterIP", "shop", "cart", 0, True, (), (), owner=owner
    )  # fmt: skip
    ports = tuple(ContainerPort(number, TCP) for number in declares)
    pod = Pod("shop", "cart-0", "n1", "Running", (v6,), False, True, ("c",), ports=ports)
    flow = Flow(TCP, ip_address("fd00::1"), None, ip_address("fd00::2"), 8080)
    return remedy(Unmet(flow, "pod shop/cart-0", pod, sockets, service))


EDIT = "kubectl edit svc -n shop cart"
LOGS = "kubectl logs -n shop cart-0"


@pytest.mark.parametrize(
    ("found", "cause", "text", "command"),
    [
        (unmet(socket(ANY6, 9090)), "it listens on 9090", "targetPort of port 80 to 9090", EDIT),
        (
            unmet(socket(ANY6, 9090), declares=(9090, 9091)),
            "declare 9090, 90",
            "to 9090 in",
            EDIT,
        ),
        (unmet(declares=(9090,)), "listens at no TCP port of fd00::2", "to 9090 in", EDIT),
        (unmet(socket(ANY6, 9090), declares=(8080,)), "declare 8080", "listen at port 8080", LOGS),
        (unmet(socket(ANY6, 9090), target="http"), "targetPort http", "listen at port 8080", LOGS),
        (
            unmet(socket(ANY, 9090), socket("::1", 9091)),
            "at no TCP port of fd00::2",
            "listen at",
            LOGS,
        ),
        (unmet(socket(ANY, 8080)), "0.0.0.0:8080 only, which takes no IPv6", "listen on :: as", ""),
        (unmet(socket("::1", 8080)), "[::1]:8080 only, which is reached from inside", "Bind", ""),
    ],
)
def test_the_object_to_edit_is_chosen_by_ports(
    found: Remedy, cause: str, text: str, command: str
) -> None:
    assert cause in found.cause
    assert text in found.fix.text
    assert found.fix.command == command
    assert found.object == ("Service shop/cart" if command == EDIT else "Pod shop/cart-0")


# --- SCTP -----------------------------------------------------------------------------------------

EPS = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"


def by_sctp(enabled: str, *more: Record) -> Answer:
    """The answer to a packet of SCTP, where `enable-sctp` is this."""

    def setting(value: Any) -> None:
        (item,) = value.get("items", [value])
        item["data"]["enable-sctp"] = enabled

    with attempt(600.0):
        settings = [json_edit("api", "get cilium-config", setting)] if enabled else []
        return ask(changed(VXLAN, *settings, more=more), "client", "pod/web:3868", "sctp")


def listening(*endpoints_: str) -> Record:
    """What `cat /proc/net/sctp/eps` prints in the far pod, or is printed of it by a node pod."""
    rows = "".join(f"1 2 2 10 29 {row.partition(' ')[0]} 0 42 {row.partition(' ')[2]}\n"
                   for row in endpoints_)  # fmt: skip
    return Record(0, WEB, q.SCTP_ENDPOINTS.forms[0], 0, InMemory((EPS + rows).encode()))


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (("3868 0.0.0.0",), Verdict.REACHABLE),
        (("3868 10.0.0.9 *10.244.0.135",), Verdict.REACHABLE),
        (("3868 127.0.0.1", "3869 0.0.0.0"), Verdict.DROPPED),
        ((), Verdict.DROPPED),
    ],
)
def test_an_endpoint_of_sctp_takes_it_or_nobody_does(
    rows: tuple[str, ...], verdict: Verdict
) -> None:
    path = by_sctp("true", listening(*rows))
    assert path.verdict is verdict, path.reason
    assert verdict is Verdict.REACHABLE or "refused with an ABORT" in path.reason


def test_endpoints_of_sctp_that_were_not_read_are_presumed() -> None:
    path = by_sctp("true")
    assert path.verdict is Verdict.REACHABLE
    assert "the sockets of pod default/web" in path.presumed


def test_cilium_passes_sctp_only_where_it_is_told_to() -> None:
    path = by_sctp("false", listening("3868 0.0.0.0"))
    assert (path.verdict, dropped_at(path).node) == (Verdict.DROPPED, "node2")
    assert path.drop is not None
    assert path.drop.object == "ConfigMap kube-system/cilium-config: enable-sctp"
    path = by_sctp("", listening("3868 0.0.0.0"))
    assert path.verdict is Verdict.UNKNOWN
    assert "nothing says whether enable-sctp is true" in path.reason
