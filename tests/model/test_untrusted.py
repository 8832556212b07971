"""Nothing that a stranger says makes a reader of his text raise anything but ParseError."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import untrusted
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol import codec

TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "²", "٣", "5" * 5000, "-" + "9" * 41, "0x", "0x_1", "1_0", "1e999", "NaN", "Infinity", "+1",
        "10.0.0.1/" + "9" * 5000, "fe80::1%x", "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-01", "\ud800",
    ]
)  # fmt: skip
PLAIN = TEXTS | st.integers() | st.floats() | st.booleans() | st.none()
VALUES = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(TEXTS, PLAIN, max_size=2)
READERS: list[Callable[[Any, str], object]] = [
    untrusted.integer, untrusted.port, untrusted.address, untrusted.network, untrusted.moment,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@given(value=VALUES)
def test_a_value_is_read_or_a_parse_error(read: Callable[[Any, str], object], value: Any) -> None:
    try:
        read(value, "it")
    except ParseError as error:
        str(error).encode()  # it can be printed


@given(st.binary(max_size=40) | VALUES.map(json.dumps).map(str.encode))
def test_json_is_read_or_a_parse_error(data: bytes) -> None:
    try:
        value = untrusted.json_value(data, "it")
    except ParseError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_number_that_python_does_not_print() -> None:
    with pytest.raises(ParseError, match="a number of 16610 bits"):
        untrusted.port(10**5000, "it")


@pytest.mark.parametrize(
    "data", ["[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "[" * 99999, "9" * 41, "NaN"]
)
def test_what_python_reads_and_later_stumbles_over_is_refused(data: str) -> None:
    with pytest.raises(ParseError):
        untrusted.json_value(data.encode(), "it")


def test_a_hundred_lists_in_each_other_are_read() -> None:
    text = "[" * 100 + "]" * 100
    assert json.dumps(untrusted.json_value(text.encode(), "it")) == text
    wide = b'[{"a": [1, "[[[[", {"b": []}]}' + b', {"a": [1]}' * 200 + b"]"
    assert untrusted.json_value(wide, "it") == json.loads(wide)


def test_times_have_a_zone() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for text in ("2026-01-01T12:00:00", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00"):
        assert untrusted.moment(text, "it") == noon


def _of(kind: Any) -> st.SearchStrategy[Any]:
    names = list(getattr(kind, "__dataclass_fields__", {"x": None}))
    return st.dictionaries(st.sampled_from(names), VALUES, max_size=len(names)) | VALUES


@given(st.data())
def test_a_fact_of_a_node_is_read_or_a_parse_error(data: st.DataObject) -> None:
    kind = NODE_FACTS[data.draw(st.sampled_from(sorted(NODE_FACTS)))]
    try:
        codec.fact(_written(data.draw(_of(kind))), kind, 1)
    except ParseError:
        return


def test_a_number_is_no_address_of_a_flow() -> None:
    flow = {"protocol": "tcp", "source": 5, "source_port": 1, "destination": 6}
    line = json.dumps({**flow, "destination_port": 2}).encode()
    with pytest.raises(ParseError, match="is not an IP address"):
        codec.fact(line, codec.Flow)
