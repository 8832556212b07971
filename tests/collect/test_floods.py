"""Places that write without end: what is kept of it is bounded, and says what was left out."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from kubectl_ebpfnet.capture import spool
from kubectl_ebpfnet.capture.spool import STDERR_LIMIT, Spool, StderrSpool
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod
from kubectl_ebpfnet.collect.ask import container as asking
from kubectl_ebpfnet.collect.ask import node_pod, shell_script
from kubectl_ebpfnet.collect.ask.container import LONGEST_ADDRESS, PodExec
from kubectl_ebpfnet.collect.ask.node_pod import AnswerStream, NodePodExec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.script import SCRIPT
from kubectl_ebpfnet.collect.ask.shell_script import Splitter
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ExecError, Forbidden, ParseError
from kubectl_ebpfnet.model.catalogue import LINKS
from kubectl_ebpfnet.model.evidence import PlaceKind, node_place, pod_place
from kubectl_ebpfnet.model.fact import Fact, Form
from kubectl_ebpfnet.model.protocol import codec
from tests.cluster.node_sessions import OURS

PIECE = b"no such device\n" * 2000
PIECES = 2000  # 60 MB
HALF = STDERR_LIMIT // 2
NO_DEADLINE = Deadline(None)
SESSION: Any = None  # what would use it is replaced
POD = PodExec(SESSION, pod_place("default", "x"), Container("default", "x"))


@pytest.fixture
def flat_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


Sink = Callable[[bytes], None]


def runs(
    monkeypatch: pytest.MonkeyPatch, module: Any, program: Callable[[list[str], Sink, Sink], int]
) -> None:
    """Let `program` be what runs in the container."""

    def run_exec(
        session: object, container: Container, argv: list[str], out: Sink, err: Sink, *_: object,
        **__: object,
    ) -> int:  # fmt: skip
        return program(argv, out, err)

    monkeypatch.setattr(module, "run_exec", run_exec)


def asked(program: str) -> Question:
    return Question(Fact(program, str, (PlaceKind.POD,), asked=(Form("", (program,)),)), POD.place)


def test_a_shell_that_is_killed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(argv: list[str], out: Sink, _: Sink) -> int:
        out(b"first\n%b 1 0 0\nhalf" % argv[2].encode())
        return 137

    runs(monkeypatch, asking, program)
    one, two = POD.ask([asked("a"), asked("b")], NO_DEADLINE)
    assert (one.ok, one.stdout.read()) == (True, b"first")
    assert (two.argv, two.stdout.read(), two.exit_code) == (("b",), b"half", None)
    assert two.error == "its shell ended with exit code 137"


def test_a_stderr_whose_mark_did_not_come_is_of_one_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def program(argv: list[str], out: Sink, err: Sink) -> int:
        for number in (1, 2):
            out(b"%d\n%b %d 1 0\n" % (number, argv[2].encode(), number))
        err(b"of the first")
        raise ExecError("the connection broke")

    runs(monkeypatch, asking, program)
    records = POD.ask([asked("a"), asked("b"), asked("c")], NO_DEADLINE)
    assert [record.stderr for record in records] == [b"of the first", b"", b""]


def flood(sink: Sink) -> None:
    sink(b"first")
    for _ in range(PIECES):
        sink(PIECE)
    sink(b"last")


def check(stderr: bytes) -> None:
    size = len(PIECE) * PIECES + len("first") + len("last")
    words = b"\n[kubectl-ebpfnet left out %d bytes here]\n" % (size - STDERR_LIMIT)
    assert stderr[HALF:-HALF] == words
    assert stderr.startswith(b"firstno such device\n")
    assert stderr.endswith(b"no such device\nlast")


@pytest.mark.usefixtures("flat_memory")
def test_a_stderr_without_end_beside_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(argv: list[str], out: Sink, err: Sink) -> int:
        nonce = argv[2].encode()
        for number in (1, 2):
            out(b"%d\n%b %d 1 0\n" % (number, nonce, number))
        flood(err)
        err(b"\n%b 1 1 0\nshort\n%b 2 1 0\n" % (nonce, nonce))
        return 0

    runs(monkeypatch, asking, program)
    one, two = POD.ask([asked("a"), asked("b")], NO_DEADLINE)
    check(one.stderr)
    assert one.why_not() == "exit code 1: last"
    assert (two.stdout.read(), two.stderr) == (b"2", b"short")


@pytest.mark.usefixtures("flat_memory")
def test_a_stderr_without_end_where_there_is_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(argv: list[str], out: Sink, err: Sink) -> int:
        if argv[0] == "sh":
            raise ExecError('exec: "sh": executable file not found in $PATH')
        flood(err)
        return 2

    runs(monkeypatch, asking, program)
    (record,) = POD.ask([asked("a")], NO_DEADLINE)
    check(record.stderr)


@pytest.mark.usefixtures("flat_memory")
def test_a_node_side_that_complains_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(_: list[str], __: Sink, err: Sink) -> int:
        flood(err)
        return 1

    runs(monkeypatch, node_pod, program)
    pod = NodePod("n", POD.container)
    answerer = NodePodExec(SESSION, node_place("n"), lambda _: pod)
    (record,) = answerer.ask([Question(LINKS, answerer.place)], NO_DEADLINE)
    assert record.error == "the node side ended with exit code 1: last"


def test_a_node_side_that_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose pod is deleted."""
    runs(monkeypatch, node_pod, lambda _, __, err: err(b"\n") or 1)
    answerer = NodePodExec(SESSION, node_place("n"), lambda _: NodePod("n", POD.container))
    (record,) = answerer.ask([Question(LINKS, answerer.place)], NO_DEADLINE)
    assert record.error == "the node side ended with exit code 1"


def test_a_stderr_that_is_just_short_enough_is_kept_whole() -> None:
    kept = StderrSpool()
    text = bytes(range(256)) * (STDERR_LIMIT // 256)
    for at in range(0, len(text), 1000):
        kept.write(text[at : at + 1000])
    assert kept.output().read() == text


@pytest.mark.usefixtures("flat_memory")
def test_a_mark_without_an_end_is_no_mark() -> None:
    splitter, size = Splitter("0123456789abcdef", StderrSpool), 0
    splitter.feed(b"\n0123456789abcdef ")
    for _ in range(PIECES):
        splitter.feed(b"1" * 30_000)
        size += 30_000
    splitter.feed(b"\n0123456789abcdef 1 0 0\n")
    (section,) = splitter.sections
    assert section.output.read().startswith(b"\n0123456789abcdef 111")


def test_marks_without_end_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_script, "_MOST_SECTIONS", 3)
    splitter = Splitter("0123456789abcdef")
    splitter.feed(b"\n0123456789abcdef 1 0 0\n" * 10)
    assert len(splitter.sections) == 3
    assert splitter.rest().read() == b"\n0123456789abcdef 1 0 0\n" * 7


def test_many_outputs_that_are_short_enough_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_script, "_MOST_IN_MEMORY", 100_000)

    def program(argv: list[str], out: Sink, _: Sink) -> int:
        for _ in range(1000):
            out(PIECE + b"\n%b 1 0 0\n" % argv[2].encode())
        return 0

    runs(monkeypatch, asking, program)
    records = POD.ask([asked("a"), asked("b")], NO_DEADLINE)
    assert sum(len(record.stdout.read()) for record in records) < 200_000
    assert records[-1].error == "no room for the output: its commands printed more than 0 MiB"


def test_an_output_that_is_too_long_is_not_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(spool, "READ_LIMIT", 4000)
    one = Spool()
    one.write(b"x" * 5000)
    with pytest.raises(ParseError, match="5000 bytes are too many to be read whole"):
        one.output().read()
    assert sum(map(len, one.output().chunks())) == 5000


def test_answers_of_a_node_side_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_pod, "_MOST_ANSWERS", 3)
    stream = AnswerStream()
    stream.feed(json.dumps(OURS).encode() + b"\n")
    stream.feed(b"".join(b'{"id": %d, "bytes": 0}\n' % number for number in range(10)))
    assert len(stream.answers) == 3
    assert "does not speak as the node side does" in stream.problem


def test_a_fact_that_nests_without_end() -> None:
    with pytest.raises(ParseError, match="nested too deep"):
        codec.fact(b"[" * 50_000, str)


def test_a_node_side_that_nests_without_end() -> None:
    stream = AnswerStream()
    stream.feed(b"[" * 50_000 + b"\n")
    assert "does not speak as the node side does" in stream.problem


def test_questions_that_do_not_fit_into_one_address_are_asked_by_several_execs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def shell(argv: list[str], out: Sink, err: Sink) -> int:
        sizes.append(len(urlencode([("command", word) for word in argv])))
        done = subprocess.run(argv, input=SCRIPT, capture_output=True, check=False)
        out(done.stdout)
        err(done.stderr)
        return done.returncode

    runs(monkeypatch, asking, shell)
    words = [f"{n}{'%' * 100}" for n in range(50)]
    forms = [(Form("", ("echo", word)),) for word in words]
    rows = [Fact("echo", str, (PlaceKind.POD,), asked=form) for form in forms]
    records = POD.ask([Question(row, POD.place) for row in rows], NO_DEADLINE)
    assert [record.stdout.read().decode() for record in records] == [f"{word}\n" for word in words]
    assert len(sizes) > 1
    assert max(sizes) <= LONGEST_ADDRESS


def test_a_place_that_denies_an_exec_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    execs: list[list[str]] = []

    def denied(argv: list[str], out: Sink, err: Sink) -> int:
        execs.append(argv)
        raise Forbidden("create", "pods/exec")

    runs(monkeypatch, asking, denied)
    (record,) = POD.ask([asked("x" * 4000), asked("y" * 4000)], NO_DEADLINE)
    assert record.denied == "create pods/exec"
    assert len(execs) == 1
