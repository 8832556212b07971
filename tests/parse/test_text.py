"""parse._text: the first step of every parser, and its promise to raise only ParseError."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.parse._text import (
    address,
    decode,
    hardware_address,
    integer,
    json_objects,
    json_value,
    lines,
    network,
    port,
    quoted,
)


def test_only_a_newline_ends_a_line() -> None:
    data = "one\r\ntwo\x0b\u2028two\n\nfour".encode()
    assert list(lines(data)) == [(1, "one"), (2, "two\x0b\u2028two"), (3, ""), (4, "four")]


def test_bad_utf8_names_its_line() -> None:
    with pytest.raises(ParseError) as raised:
        decode(b"good\ngood\nbad \xff", "a source")
    assert (raised.value.source, raised.value.line) == ("a source", 3)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("17", 17), ("0x1F", 31), (5, 5), ("0x0", 0)]
)
def test_numbers(text: object, value: int) -> None:
    assert integer(text, "x") == value


@pytest.mark.parametrize(
    "text", ["", "-1", "1_0", "٣", " 1", "0x", "1.5", "9" * 5000, None, True, [1], {}, 1.0]
)
def test_what_is_no_number(text: object) -> None:
    with pytest.raises(ParseError):
        integer(text, "x", 7)


def test_the_range_of_numbers() -> None:
    assert integer("-1", "x", least=None) == -1
    assert port("65535", "x") == 65535
    with pytest.raises(ParseError, match="out of range"):
        port("65536", "x")


def test_addresses() -> None:
    assert address("fd00:0000:0000:0000:0000:0000:0000:0001", "x") == ip_address("fd00::1")
    for text in ("", "1.2.3", "010.0.0.1", "x", 16909060, None):
        with pytest.raises(ParseError, match="not an IP address"):
            address(text, "x")


def test_networks() -> None:
    assert network("10.1.2.3/8", "x") == ip_network("10.0.0.0/8")
    assert network("10.0.0.1", "x") == ip_network("10.0.0.1/32")
    assert network("fd00::1", "x") == ip_network("fd00::1/128")
    assert network("default", "x") == ip_network("0.0.0.0/0")
    assert network("default", "x", version=6) == ip_network("::/0")
    assert network("10.0.0.0/255.0.0.0", "x") == ip_network("10.0.0.0/8")
    for text in ("", "10.0.0.0/33", "10.0.0.0/", "all", "fe80::%eth0/64", 5, None):
        with pytest.raises(ParseError, match="not an IP prefix"):
            network(text, "x")


def test_hardware_addresses() -> None:
    assert hardware_address("AA:bb:0C:dd:ee:ff") == "aa:bb:0c:dd:ee:ff"
    assert [hardware_address(text) for text in ("10.0.0.1", "", "aa", "aa:b", "fd00::1")] == [
        ""
    ] * 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b"[1", "not JSON"),
        (b"[NaN]", "NaN"),
        (b"[1e999]", "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'["\\ud800"]', "surrogate"),
        (b"[" * 100_000, "deep"),
        (b"\xff", "UTF-8"),
        (b"9" * 5000, "not JSON"),
    ],
)
def test_json_that_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(ParseError, match=problem):
        json_value(text, "x")


def test_json_that_is_taken() -> None:
    assert json_value(b'{"a": [1, 2.5, null], "b": "\\ud83d\\ude00"}', "x") == {
        "a": [1, 2.5, None],
        "b": "\U0001f600",
    }
    assert json_value(b'{"a": 1, "a": 1}', "x") == {"a": 1}  # said twice, but the same
    with pytest.raises(ParseError, match="list of objects"):
        json_objects([1], "x")


def test_json_error_names_its_line() -> None:
    with pytest.raises(ParseError) as raised:
        json_value(b"[\n1,\n}", "x")
    assert raised.value.line == 3


def test_messages_are_printable_and_short() -> None:
    assert quoted("a\x1b[31m") == r"'a\x1b[31m'"
    assert len(quoted("x" * 10_000)) < 80
    assert quoted({"a": 1}) == "a JSON object"
