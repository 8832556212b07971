"""Requests that other processes answer beside the one that serves."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import (
    PROTOCOL,
    FlowFilter,
    LeftOut,
    NodeRequest,
    node_argv,
)
from kubectl_ebpfnet.node.server import answer, registry

FLOW = (FlowFilter(protocol=6),)


def answered(*requests: NodeRequest) -> dict[int, tuple[dict[str, object], bytes]]:
    """Header and body of each answer, by its number."""
    lines = [json.dumps({"protocol": PROTOCOL, **codec.plain(one)}) for one in requests]
    out = io.BytesIO()
    asked = io.BytesIO("\n".join([*lines, '{"end": true}', ""]).encode())
    assert answer.serve(asked, out) == 0
    out.seek(0)
    assert json.loads(out.readline())["protocol"] == PROTOCOL
    found = {}
    while line := out.readline():
        header = json.loads(line)
        found[header["id"]] = header, out.read(header["bytes"])
    return found


@pytest.fixture(autouse=True)
def questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is answered by the process that answers it, and its number."""

    def facts(request: NodeRequest) -> Iterator[object]:
        yield f"{os.getpid()} {request.id}"
        yield LeftOut(request.id, 7)

    monkeypatch.setattr(registry, "function", lambda name: facts)


def test_long_tables_are_read_by_processes_of_their_own() -> None:
    names = ("links", "ct", "nat", "conntrack", "lb")
    asked = [
        NodeRequest(
            number, node_argv(name), None, FLOW, (), 5 if name not in ("links", "lb") else 0
        )
        for number, name in enumerate(names, 1)
    ]
    asked.append(NodeRequest(6, node_argv("snat-use", "6", "1.1.1.1", "80")))
    said = answered(*asked)
    assert sorted(said) == [1, 2, 3, 4, 5, 6]
    by = {number: int(json.loads(body).split()[0]) for number, (_, body) in said.items()}
    assert by[1] == by[5] == os.getpid()
    assert by[2] == by[3] != by[4] == by[6]
    assert os.getpid() not in (by[2], by[4])
    assert all(
        header["left_out"] == {"older": n, "beside": 7, "about": False}
        for n, (header, _) in said.items()
    )
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # they are gone


def test_long_tables_begin_at_once_and_wait_for_nobody_who_takes_their_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = tmp_path / "nat"

    def facts(request: NodeRequest) -> Iterator[object]:
        if request.argv[1] == "ct":
            yield "x" * 200_000  # more than a pipe holds
        if request.argv[1] == "nat":
            begun.touch()
        if request.argv[1] == "links":
            end = time.monotonic() + 10
            while not begun.exists() and time.monotonic() < end:
                time.sleep(0.01)
            yield begun.exists()

    monkeypatch.setattr(registry, "function", lambda name: facts)
    said = answered(
        NodeRequest(1, node_argv("links")),
        NodeRequest(2, node_argv("ct"), None, FLOW, (), 5),
        NodeRequest(3, node_argv("nat"), None, FLOW, (), 5),
    )
    assert json.loads(said[1][1]) is True
    assert len(said[2][1]) > 200_000


def test_a_request_that_is_none_is_refused_before_any_is_answered() -> None:
    lines = json.dumps({"protocol": PROTOCOL, **codec.plain(NodeRequest(1, node_argv("links")))})
    out = io.BytesIO()
    assert answer.serve(io.BytesIO(f"{lines}\n[]\n".encode()), out) == 2
    greeting, refusal = out.getvalue().splitlines()
    assert json.loads(greeting)["protocol"] == PROTOCOL
    assert json.loads(refusal)["id"] == 0
    assert "a request is a JSON object" in json.loads(refusal)["error"]


def test_a_whole_table_is_answered_in_place() -> None:
    said = answered(NodeRequest(1, node_argv("ct")))
    assert int(json.loads(said[1][1]).split()[0]) == os.getpid()


def test_a_helper_that_dies_leaves_its_answers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(request: NodeRequest) -> Iterator[object]:
        if request.argv[1] == "ct":
            os.kill(os.getpid(), 9)
        yield "alive"

    monkeypatch.setattr(registry, "function", lambda name: dies)
    asked = [
        NodeRequest(n, node_argv(name), None, FLOW, (), 5)
        for n, name in ((1, "ct"), (2, "conntrack"))
    ]
    assert sorted(answered(*asked)) == [2]
