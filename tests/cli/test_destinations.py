"""Destinations as people type them: one row a form."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.cli.destinations import Destination, destination
from kubectl_ebpfnet.errors import UsageError

ONE, SIX = ip_address("1.1.1.1"), ip_address("fd00::1")


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
        ("po/web:65535", Destination("pod", "web", "pod/web", port=65535)),
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
    assert destination(word) == meant


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
        ("[1.1.1.1]:80", "is not [IPv6]:PORT", "[2606:4700::1111]:80"),
        ("[fd00::1]80", "is not [IPv6]:PORT", ""),
        ("[fd00::1", "is not [IPv6]:PORT", ""),
        ("fd00::1%eth0", "a zone names a device of one machine", "fd00::1;"),
        ("1.1.1.1:80:443", "has two ports", "e.g. 1.1.1.1:80"),
        ("fd00:1:2:3:80", "is not an IPv6 address", "[2606:4700::1111]:80"),
        ("10.0.0.0/8", "is a network", "10.0.0.0"),
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
        destination(word)
    assert says in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("word", "address", "port"),
    [
        ("1.1", "1.0.0.1", None),
        ("1.1.1", "1.1.0.1", None),
        ("1.1:80", "1.0.0.1", 80),
        ("0x7f.1", "127.0.0.1", None),
        ("0X7F.0.0.1:8080", "127.0.0.1", 8080),
        ("010.0.0.1", "8.0.0.1", None),
        ("0000000010.1", "8.0.0.1", None),
        ("134744072", "8.8.8.8", None),
        ("10.65537", "10.1.0.1", None),
        ("http://1.1/", "1.0.0.1", 80),
        ("http://0x7f.1:8080/x?y#z", "127.0.0.1", 8080),
    ],
)
def test_ipv4_addresses_are_read_as_ping_wget_and_curl_do(word, address, port):
    read = destination(word)
    assert (str(read.address), read.port, read.text) == (address, port, address)
    assert (
        read.note.endswith(", read as ping, wget and curl do (inet_aton)") or "octal" in read.note
    )
    assert address not in read.note  # which the line begins with


def test_a_leading_zero_is_said_to_be_octal():
    assert "a leading 0 means octal" in destination("010.0.0.1").note
    assert "octal" not in destination("0x7f.1").note
    assert destination("8.0.0.1").note == ""


@given(st.lists(st.sampled_from(["0", "1", "08", "010", "255", "256", "0x1f", "0xg", "65536", ""]),
                min_size=1, max_size=5).map(".".join))  # fmt: skip
def test_ipv4_addresses_are_those_of_the_c_library(text):
    try:
        wanted = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        wanted = None
    read = None
    with contextlib.suppress(UsageError):
        read = destination(f"{text}:80").address
    if wanted is not None and wanted.startswith("0."):
        assert read is None  # no host has it
    else:
        assert (str(read) if read else None) == wanted


@pytest.mark.parametrize(
    ("word", "host", "port", "protocol"),
    [
        ("https://example.com/x", "example.com", 443, None),
        ("HTTPS://example.com:8443/x", "example.com", 8443, None),
        ("http://user:secret@example.com/", "example.com", 80, None),
        ("http://[fd00::1]/", "fd00::1", 80, None),
        ("http://[fd00::1]:8080?x", "fd00::1", 8080, None),
        ("wss://web.shop", "web.shop", 443, None),
        ("tcp://10.96.0.1:443", "10.96.0.1", 443, None),
        ("udp://10.96.0.10:53", "10.96.0.10", 53, 17),
        ("http://web:/", "web", 80, None),
        ("1.1.1.1:80/udp", "1.1.1.1", 80, 17),
        ("1.1.1.1:80/TCP", "1.1.1.1", 80, 6),
        ("1.1.1.1/icmp", "1.1.1.1", None, 1),
        ("[fd00::1]:53/udp", "fd00::1", 53, 17),
        ("fd00::1/icmp", "fd00::1", None, 1),
        ("example.com:53/udp", "example.com", 53, 17),
        ("pod/x:80/udp", "pod/x", 80, 17),
        ("svc/web:80/tcp", "svc/web", 80, 6),
        ("node/n1/icmp", "node/n1", None, 1),
    ],
)
def test_urls_and_protocols(word, host, port, protocol):
    read = destination(word)
    assert (read.text, read.port, read.protocol) == (host, port, protocol)


def test_a_pod_as_hubble_writes_it():
    read = destination("shop/cart-1:8080")
    assert read == Destination("pod", "cart-1", "pod/cart-1", None, 8080, namespace="shop")
    assert destination("default/udp") == Destination("pod", "udp", "pod/udp", namespace="default")
    assert destination("pod/tcp") == Destination("pod", "tcp", "pod/tcp")


@pytest.mark.parametrize(
    ("word", "says", "hint"),
    [
        ("0.0.0.0", "is no host's address", "127.0.0.1"),
        ("0.0.0.0:80", "is no host's address", "127.0.0.1"),
        ("[::]:80", "is no host's address", ""),
        ("::", "is no host's address", ""),
        ("::ffff:0.0.0.0", "is no host's address", ""),
        ("0", "read as 0.0.0.0, is no host's address", ""),
        ("80", "read as 0.0.0.80, is no host's address", "1.1.1.1:80"),
        ("80/udp", "is a port without an address", "1.1.1.1:80/udp"),
        ("08.1.1.1", "is not an IPv4 address", ""),
        ("1.1.1.256", "is not an IPv4 address", ""),
        ("1.16777216", "is not an IPv4 address", ""),
        ("9" * 300, "is not an IPv4 address", ""),
        ("9" * 300 + ":80", "is not an IPv4 address", ""),
        ("1.1.1.1:" + "9" * 300, "is not a port", ""),
        ("0x" + "f" * 300, "is not a destination", ""),
        ("1.1.1.1.", "is not an IPv4 address", ""),
        ("fe80::1%eth0", "a zone names a device of one machine", "fe80::1;"),
        ("[fe80::1%eth0]:80", "a zone names a device of one machine", "fe80::1;"),
        ("[fe80::1%25eth0]:80", "a zone names a device of one machine", "fe80::1;"),
        ("http://", "is not a URL with a host", "http://example.com/"),
        ("://x", "is not a URL with a host", ""),
        ("http:///x", "is not a URL with a host", ""),
        ("\x1b://x", "is not a URL with a host", ""),
        ("gopher://example.com", "the port of gopher:// is not known", "example.com:PORT"),
        ("http://example.com:x/", "is not a port", ""),
        ("http://a b/", "is not a destination", ""),
        ("1.1.1.1\x00", "is not a destination", ""),
        ("1.1.1.1\n", "is not a destination", ""),
        ("\u0661.1.1.1:80", "is not a DNS name", ""),
        ("1.1/8", "is a network", ""),
        ("pod/x/dccp", "'dccp' is neither a protocol nor part of a name", "tcp, udp, sctp, icmp"),
        ("1.1.1.1:80/dccp", "'dccp' is not a protocol", "tcp, udp, sctp, icmp"),
        ("[fd00::1]:80/x", "'x' is not a protocol", ""),
        ("example.com/path", "'path' is not a protocol", "http://"),
        ("pod/prod/web", "'web' is neither a protocol", "--to-namespace"),
    ],
)
def test_what_no_packet_can_be_sent_to(word, says, hint):
    with pytest.raises(UsageError) as caught:
        destination(word)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert len(caught.value.message) < 400
