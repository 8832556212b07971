"""The client's end of the node side's words: cut apart, however the bytes come."""

from __future__ import annotations

import io
import json

import pytest

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.collect.ask.node_pod import AnswerStream, _answer_records
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import node_place
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL
from tests.cluster.node_sessions import NONE, OURS

LINKS = codec.line_of(Link(1, "lo")) + codec.line_of(
    Link(2, "eth0", "veth", "aa:bb:cc:dd:ee:ff", peer_index=9)
)


def said(*answers: tuple[int, int, bytes, str], protocol: int = PROTOCOL) -> bytes:
    out = io.BytesIO()
    out.write(json.dumps({**OURS, "protocol": protocol}).encode() + b"\n")
    for number, code, body, error in answers:
        header = {"id": number, "exit_code": code, "bytes": len(body), "error": error}
        out.write(json.dumps(header).encode() + b"\n" + body)
    return out.getvalue()


@pytest.mark.parametrize("step", [1, 2, 7, 64, 100_000])
def test_answers_are_cut_apart_however_they_come(step: int) -> None:
    stream = AnswerStream()
    data = said((1, 0, LINKS, ""), (2, 1, b"", "no map"), (3, 0, b"*filter\nCOMMIT\n", ""))
    for at in range(0, len(data), step):
        stream.feed(data[at : at + step])
    assert stream.problem == ""
    bodies = {header["id"]: body.output().read() for header, body in stream.answers.values()}
    assert bodies == {1: LINKS, 2: b"", 3: b"*filter\nCOMMIT\n"}


@pytest.mark.parametrize("step", [1, 100_000])
def test_an_answer_in_parts_is_one_answer(step: int) -> None:
    stream = AnswerStream()
    parts = [LINKS[at : at + 40] for at in range(0, len(LINKS), 40)]
    data = json.dumps(OURS).encode() + b"\n"
    for number, part in enumerate(parts, 1):
        last = {"exit_code": 0, "error": ""} if number == len(parts) else {"more": True}
        data += json.dumps({"id": 1, "bytes": len(part), **last}).encode() + b"\n" + part
    for at in range(0, len(data), step):
        stream.feed(data[at : at + step])
    ((header, body),) = stream.answers.values()
    assert (header["exit_code"], body.output().read()) == (0, LINKS)


def test_an_answer_that_was_cut_off_is_no_answer() -> None:
    stream = AnswerStream()
    stream.feed(said((1, 0, LINKS, ""), (2, 0, LINKS, ""))[:-5])
    assert list(stream.answers) == [1]


@pytest.mark.parametrize(
    ("greeting", "version", "other"),
    [
        (NONE, "none", True),
        ({"protocol": PROTOCOL, "version": "0.0.9"}, "0.0.9", True),
        ({**OURS, "digest": "0" * 64}, __version__, True),
        ({**OURS, "digest": [], "version": "9" * 5000}, "9" * 40, True),
        ({**OURS, "protocol": PROTOCOL + 1}, __version__, False),
    ],
)
def test_another_node_side_answers_nothing(
    greeting: dict[str, object], version: str, other: bool
) -> None:
    stream = AnswerStream()
    stream.feed(json.dumps(greeting).encode() + b"\n" + said((1, 0, LINKS, "")))
    assert stream.problem == f"the node side there is another one (version {version})"
    assert stream.other_side is other
    assert not stream.answers


@pytest.mark.parametrize(
    "noise",
    [
        b"sh: ebpfnet-node: not found\n",
        b"[]\n",
        b"x" * 100_000,
        b'{"protocol":1}\n{"a":1}\n',
        *(
            said() + each
            for each in (
                b'{"id": [], "bytes": 0}\n',
                b'{"id": true, "bytes": 0}\n',
                b'{"bytes": 0}\n',
                b'{"id": 1, "bytes": 0}\n' * 2,
                b'{"id": 1, "bytes": 1, "more": true}\nx{"id": 2, "bytes": 1}\ny',
            )
        ),
    ],
)
def test_what_is_not_the_node_side_is_told_apart(noise: bytes) -> None:
    stream = AnswerStream()
    stream.feed(noise)
    assert stream.problem
    for _ in range(100):
        stream.feed(bytes(1 << 16))
    assert len(stream._buffer) < 1 << 18
    assert 2 not in stream.answers


def test_an_exit_code_that_is_no_number_is_a_failure() -> None:
    stream = AnswerStream()
    stream.feed(said((1, True, b"", ""), (2, 0, b"", "")))
    questions = [Question(q.LINKS, node_place("n")), Question(q.ROUTES, node_place("n"))]
    codes = [record.exit_code for record in _answer_records(questions, stream, "", "", "")]
    assert codes == [1, 0]
    assert codes[0] is not True
