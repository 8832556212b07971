"""Answers of a DNS server, and of a node side, that lie."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.collect.ask.node_pod import AnswerStream, _answer_records
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import node_place
from kubectl_ebpfnet.parse import lookup
from tests.cluster.node_sessions import OURS

GOOD = ip_address("192.0.2.7")
LIES = (
    "$(id)", "`id`", "-f", "--all", "192.0.2.7;id", "192.0.2.7\x1b[2J", "\u202e7.2.0.291",
    "1" * 5000, "192.0.2.07", "999.1.1.1", "::1%eth0;id", "fe80::1%eth0", "0x7f000001", "",
)  # fmt: skip


@given(st.text() | st.sampled_from(LIES))
def test_what_a_dns_server_says_is_an_address_or_nothing(lie: str) -> None:
    """What is asked next is made of these addresses, so words would be words of a command."""
    data = lie.encode("utf-8", "surrogatepass")
    for found in (
        lookup.addresses(data + b"\n192.0.2.7 STREAM\n"),
        lookup.nslookup(b"Name:\tx\nAddress: " + data + b"\nAddress: 192.0.2.7\n"),
    ):
        assert GOOD in found
        assert all(getattr(each, "scope_id", None) is None for each in found)  # `%` and any words


@pytest.mark.parametrize("lie", LIES)
def test_none_of_these_is_an_address(lie: str) -> None:
    assert lookup.addresses(lie.encode()) == ()


@pytest.mark.parametrize(
    "header",
    [
        '{"id": 1, "bytes": 1e999, "exit_code": 0}',
        '{"id": 1, "bytes": -1, "exit_code": 0}',
        '{"id": 1, "bytes": "3", "exit_code": 0}',
        '{"id": 1, "bytes": null, "exit_code": 0}',
        '{"id": 1, "bytes": ' + "9" * 5000 + "}",
        '{"id": ' + "9" * 5000 + ', "bytes": 0}',
        '{"id": "1", "bytes": 0}',
        '{"id": 1.0, "bytes": 0}',
        '{"id": NaN, "bytes": 0}',
        '{"id": 1, "bytes": 99999999999999, "exit_code": 0}',  # promised, and never sent
        '{"id": 7, "bytes": 0, "exit_code": 0}',  # nobody asked 7
        "[" * 5000,
    ],
)
def test_headers_of_a_node_side_that_lies(header: str) -> None:
    """No such header makes an answer: the question stays unanswered, with its reason."""
    stream = AnswerStream()
    stream.feed(json.dumps(OURS).encode() + b"\n" + header.encode() + b"\n")
    stream.feed(b'{"ifindex": 1}\n')
    [record] = _answer_records([Question(q.LINKS, node_place("n"))], stream, "it ended", "", "")
    assert not record.ok
    assert record.why_not()
    assert len(record.why_not()) < 500
