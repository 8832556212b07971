"""Words of the command line, one by one."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.arguments import Source
from kubectl_ebpfnet.errors import UsageError

CLIENT, CLIENT6 = ip_address("203.0.113.9"), ip_address("2001:db8::9")


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
        ("shop/cart", Source("pod", "cart", "pod/cart", "shop")),
        ("node/n1", Source("node", "n1", "node/n1")),
        ("no/n1.example.com", Source("node", "n1.example.com", "no/n1.example.com")),
        ("203.0.113.9", Source("address", "", "203.0.113.9", address=CLIENT)),
        ("::ffff:203.0.113.9", Source("address", "", "203.0.113.9", address=CLIENT)),
        ("2001:DB8::9", Source("address", "", "2001:db8::9", address=CLIENT6)),
        ("[2001:db8::9]", Source("address", "", "2001:db8::9", address=CLIENT6)),
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
        ("203.0.113.9:4711", "a source has no port", "leave it out"),
        ("[2001:db8::9]:80", "a source has no port", "leave it out"),
        ("127.0.0.1", "is a loopback address", "203.0.113.9"),
        ("::1", "is a loopback address", ""),
        ("0.0.0.0", "is an unspecified address", ""),
        ("224.0.0.1", "is a multicast address", ""),
        ("255.255.255.255", "is a multicast address", ""),
        ("169.254.1.1", "is a link-local address", ""),
        ("fe80::1", "is a link-local address", ""),
        ("fe80::1%eth0", "a zone names a device", ""),
        ("cm/x", "unknown type 'cm'", "pod/x"),
        ("pod/", "the name is missing", "pod/NAME"),
        ("pod/Web", "'Web' is not a valid name", "lower case: web"),
        ("prod/web/x", "unknown type 'prod'", "pod/NAME"),
        ("Prod/web", "unknown type 'Prod'", "pod/web"),
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


@pytest.mark.parametrize("word", ["node/n1", "no/n1", "n1"])
def test_the_node_of_via(word):
    sender, request = arguments.question(
        "203.0.113.9", "svc/web", "", "", ipv4=False, ipv6=False, via_word=word
    )
    asked = request("shop")
    assert (asked.via, asked.source_address, asked.from_outside) == ("n1", CLIENT, True)
    assert (asked.source_namespace, asked.destination_namespace) == ("", "shop")
    assert sender.text == "203.0.113.9"


@pytest.mark.parametrize(
    ("source", "to", "via", "says"),
    [
        ("pod/client", "svc/web", "node/n1", "pod/client is inside of the cluster"),
        ("node/n1", "svc/web", "node/n1", "node/n1 is inside of the cluster"),
        ("203.0.113.9", "svc/web", "pod/x", "enters by a node"),
        ("203.0.113.9", "svc/web", "node/X", "not a valid name"),
        ("203.0.113.9", "example.com", "", "looked up as a pod does it"),
        ("node/n1", "example.com:80", "", "looked up as a pod does it"),
    ],
)
def test_what_contradicts_the_source(source, to, via, says):
    with pytest.raises(UsageError) as caught:
        arguments.question(source, to, "", "", ipv4=False, ipv6=False, via_word=via)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("word", "to", "number"),
    [
        ("tcp", "1.1.1.1:80", 6),
        ("UDP", "svc/dns", 17),
        ("icmp", "1.1.1.1", 1),
        ("icmp", "fd00::1", 58),
        ("icmp", "pod/web", 1),
        ("", "pod/web", 6),
        ("", "pod/web:53/udp", 17),
        ("udp", "pod/web:53/UDP", 17),
        ("", "1.1.1.1/icmp", 1),
        ("udp", "https://example.com/", 17),
    ],
)
def test_protocol(word, to, number):
    assert arguments.protocol(word, arguments.destination(to)) == number


@pytest.mark.parametrize(
    ("word", "to", "says"),
    [
        ("dccp", "1.1.1.1", "unknown protocol"),
        ("6", "1.1.1.1", "unknown protocol"),
        ("icmp", "1.1.1.1:80", "ICMP has no ports"),
        ("icmp", "svc/web:http", "ICMP has no ports"),
        ("", "1.1.1.1:80/icmp", "ICMP has no ports"),
        ("udp", "1.1.1.1:80/tcp", "--protocol udp and /tcp of the destination"),
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


def test_the_namespace_of_a_word_counts():
    sender, there = arguments.source("shop/cart"), arguments.destination("data/db-0:5432")
    request = arguments.request(sender, there, 6, "default", "")
    assert (request.source_namespace, request.destination_namespace) == ("shop", "data")
    with pytest.raises(UsageError, match="two namespaces"):
        arguments.request(sender, there, 6, "default", "other")


def test_the_ip_version():
    name, six = arguments.destination("pod/web"), arguments.destination("fd00::1")
    assert arguments.ip_version(ipv4=False, ipv6=False, to=six) is None
    assert arguments.ip_version(ipv4=False, ipv6=True, to=name) == 6
    assert arguments.ip_version(ipv4=True, ipv6=False, to=name) == 4
    with pytest.raises(UsageError, match="-4: fd00::1 is an IPv6 address"):
        arguments.ip_version(ipv4=True, ipv6=False, to=six)
    with pytest.raises(UsageError, match="one IP version"):
        arguments.ip_version(ipv4=True, ipv6=True, to=name)


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
