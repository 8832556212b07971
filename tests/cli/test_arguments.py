"""Words of the command line, one by one."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.arguments import Destination, Source
from kubectl_ebpfnet.errors import UsageError

ONE, SIX = ip_address("1.1.1.1"), ip_address("fd00::1")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pod/client", Source("pod", "client", "pod/client")),
        ("po/client", Source("pod", "client", "pod/client")),
        ("pods/client", Source("pod", "client", "pod/client")),
        ("client", Source("pod", "client", "pod/client")),
        ("Pod/client", Source("pod", "client", "pod/client")),
        (
            "pod/etcd-n1.example.com",
            Source("pod", "etcd-n1.example.com", "pod/etcd-n1.example.com"),
        ),
        ("deploy/web", Source("Deployment", "web", "deploy/web")),
        ("deployment/web", Source("Deployment", "web", "deployment/web")),
        ("deployments/web", Source("Deployment", "web", "deployments/web")),
        ("sts/db", Source("StatefulSet", "db", "sts/db")),
        ("statefulsets/db", Source("StatefulSet", "db", "statefulsets/db")),
        ("daemonset/agent", Source("DaemonSet", "agent", "daemonset/agent")),
        ("ds/agent", Source("DaemonSet", "agent", "ds/agent")),
        ("rs/web-1", Source("ReplicaSet", "web-1", "rs/web-1")),
        ("job/once", Source("Job", "once", "job/once")),
    ],
)
def test_source(word, meant):
    assert arguments.source(word) == meant


@pytest.mark.parametrize(
    ("word", "says", "hint"),
    [
        ("", "empty", "pod/client"),
        ("client.prod", "a namespace does not belong", "-n: pod/client -n prod"),
        ("svc/web", "cannot be a source", "pod/NAME"),
        ("node/n1", "cannot be a source", "pod/NAME"),
        ("cm/x", "unknown type 'cm'", "pod/x"),
        ("pod/", "the name is missing", "pod/NAME"),
        ("pod/Web", "'Web' is not a valid name", "lower case: web"),
        ("prod/web", "unknown type 'prod'", "pod/web"),
        ("pod/prod/web", "'prod/web' is not a valid name", "-n"),
        ("client:80", "is not a valid name", "only a destination has a port"),
        ("pod/a b", "is not a valid name", "a-z"),
        ("pod/a_b", "is not a valid name", "letter or digit"),
        ("pod/-a", "is not a valid name", "letter or digit"),
        ("pod/x;rm -rf", "is not a valid name", "letter"),
        ("pod/x\n", "is not a valid name", "letter"),
        ("/x", "unknown type ''", "pod/x"),
        ("pod/" + "a" * 254, "is not a valid name", ""),
        ("pod/x\x1b[2J", "is not a valid name", ""),
    ],
)
def test_what_is_no_source(word, says, hint):
    with pytest.raises(UsageError) as caught:
        arguments.source(word)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("1.1.1.1", Destination("address", "", "1.1.1.1", ONE)),
        ("1.1.1.1:80", Destination("address", "", "1.1.1.1", ONE, 80)),
        ("fd00::1", Destination("address", "", "fd00::1", SIX)),
        ("FD00:0::1", Destination("address", "", "fd00::1", SIX)),
        ("[fd00::1]", Destination("address", "", "fd00::1", SIX)),
        ("[fd00::1]:8080", Destination("address", "", "fd00::1", SIX, 8080)),
        ("::ffff:1.1.1.1", Destination("address", "", "1.1.1.1", ONE)),
        ("pod/web", Destination("pod", "web", "pod/web")),
        ("po/web:65535", Destination("pod", "web", "po/web", port=65535)),
        ("svc/web", Destination("service", "web", "svc/web")),
        ("svc/web:80", Destination("service", "web", "svc/web", port=80)),
        ("service/web:http-2", Destination("service", "web", "service/web", port_name="http-2")),
        ("services/web:a-1", Destination("service", "web", "services/web", port_name="a-1")),
        ("nodes/n1:30080", Destination("node", "n1", "nodes/n1", port=30080)),
        ("node/n1.example:10250", Destination("node", "n1.example", "node/n1.example", port=10250)),
        ("example.com", Destination("name", "example.com", "example.com")),
        ("example.com.:443", Destination("name", "example.com.", "example.com.", port=443)),
        ("web", Destination("name", "web", "web")),
        ("_sip.example.com", Destination("name", "_sip.example.com", "_sip.example.com")),
    ],
)
def test_destination(word, meant):
    assert arguments.destination(word) == meant


@pytest.mark.parametrize(
    ("word", "says", "hint"),
    [
        ("", "empty", "1.1.1.1:80"),
        ("1.1.1.1:0", "'0' is not a port", "1 to 65535"),
        ("1.1.1.1:65536", "'65536' is not a port", "1 to 65535"),
        ("1.1.1.1:", "'' is not a port", ""),
        ("1.1.1.1:http", "'http' is not a port", ""),
        ("pod/web:http", "'http' is not a port", "1 to 65535"),
        ("svc/web:HTTP!", "is not a port", "name of a Service's port"),
        ("svc/web:99999", "is not a port", ""),
        ("svc/web:", "'' is not a port", "name of a Service's port"),
        ("svc/web:-a", "'-a' is not a port", "name of a Service's port"),
        ("svc/web:\uff11", "is not a port", "name of a Service's port"),
        ("256.1.1.1", "is not an IPv4 address", ""),
        ("1.1.1:80", "is not an IPv4 address", ""),
        ("[1.1.1.1]:80", "is not [IPv6]:PORT", "[2606:4700::1111]:80"),
        ("[fd00::1]80", "is not [IPv6]:PORT", ""),
        ("[fd00::1", "is not [IPv6]:PORT", ""),
        ("fd00::1%eth0", "a zone is valid on one node only", ""),
        ("fd00:1:2:3:80", "is not an IPv6 address", "[2606:4700::1111]:80"),
        ("10.0.0.0/8", "is a network", "10.0.0.0"),
        ("https://example.com/x", "is a URL", "example.com:443"),
        ("deploy/web", "a Deployment cannot be a destination", "svc/NAME"),
        ("cm/x", "unknown type 'cm'", ""),
        ("svc/", "the name is missing", ""),
        ("bücher.example", "is not a DNS name", "xn--"),
        ("a b", "is not a destination", ""),
        ("-x", "is not a destination", ""),
        ("x..y", "is not a destination", ""),
        ("x" * 64, "is not a destination", ""),
        ("1.1.1.\u0661", "is not a DNS name", ""),
        ("1.1.1.1:\u0668\u0660", "is not a port", ""),
    ],
)
def test_what_is_no_destination(word, says, hint):
    with pytest.raises(UsageError) as caught:
        arguments.destination(word)
    assert says in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("word", "to", "number"),
    [
        ("tcp", "1.1.1.1:80", 6),
        ("UDP", "svc/dns", 17),
        ("icmp", "1.1.1.1", 1),
        ("icmp", "fd00::1", 58),
        ("icmp", "pod/web", 1),
    ],
)
def test_protocol(word, to, number):
    assert arguments.protocol(word, arguments.destination(to)) == number


@pytest.mark.parametrize(
    ("word", "to", "says"),
    [
        ("sctp", "1.1.1.1", "unknown protocol"),
        ("6", "1.1.1.1", "unknown protocol"),
        ("icmp", "1.1.1.1:80", "ICMP has no ports"),
        ("icmp", "svc/web:http", "ICMP has no ports"),
    ],
)
def test_what_is_no_protocol(word, to, says):
    with pytest.raises(UsageError, match=says):
        arguments.protocol(word, arguments.destination(to))


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("10s", 10), ("1m", 60), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("7", 7), ("0", None),
     ("0s", None)],
)  # fmt: skip
def test_duration(word, seconds):
    assert arguments.duration(word, "--timeout") == seconds


@pytest.mark.parametrize("word", ["", "s", "-1s", "1d", "1s2", "1 s", "٣s", "1e3s", "9" * 20])
def test_what_is_no_duration(word):
    with pytest.raises(UsageError, match="--timeout"):
        arguments.duration(word, "--timeout")


def test_the_whole_question():
    there = arguments.destination("svc/web:http")
    request = arguments.request(arguments.source("deploy/cart"), there, 6, "shop", "")
    assert (request.source, request.source_kind, request.source_name) == (
        "deploy/cart",
        "Deployment",
        "cart",
    )
    assert (request.destination_namespace, request.port, request.port_name) == (
        "shop",
        None,
        "http",
    )
    far = arguments.request(arguments.source("x"), there, 6, "shop", "data")
    assert far.destination_namespace == "data"
    outside = arguments.request(
        arguments.source("x"), arguments.destination("1.1.1.1"), 6, "shop", "data"
    )
    assert outside.destination_namespace == ""


def test_targets():
    assert arguments.pod_or_node("node/n1", "flows").kind == "node"
    assert arguments.pod_or_node("x", "flows").text == "pod/x"
    assert arguments.pod_or_node("ds/agent", "flows").kind == "DaemonSet"
    assert arguments.target("svc/web").kind == "service"
    with pytest.raises(UsageError, match="flows takes a pod or node") as refused:
        arguments.pod_or_node("svc/web", "flows")
    assert refused.value.hint == "for a Service use `kubectl ebpfnet path`"


PIECES = st.lists(
    st.sampled_from(
        [
            "pod",
            "svc",
            "/",
            ":",
            "[",
            "]",
            "1.1.1.1",
            "::",
            "fd00",
            "80",
            "%",
            ".",
            "x",
            "\x00",
            " ",
        ]
    )
).map("".join)


@pytest.mark.parametrize("read", [arguments.source, arguments.destination, arguments.target])
@given(word=st.text() | PIECES)
def test_any_string_is_understood_or_refused(read, word):
    with contextlib.suppress(UsageError):
        assert read(word).text


@given(st.text())
def test_any_duration_is_understood_or_refused(word):
    with contextlib.suppress(UsageError):
        assert arguments.duration(word, "--timeout") != 0
