"""A live exec against the fake server, whose far end is the real node side in a process of its own.

Both versions of the protocol; stdin and stdout are pipes of this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import LIVE, exec_live
from kubectl_ebpfnet.cluster.exec.stdio import LiveStreams
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import EbpfnetError, ExecError, ExecTimeout, Forbidden
from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import PROGRAM, SESSION, FrameReader, Kind, frame
from tests.cluster.exec.live_node import CAT, on_the_node
from tests.cluster.fake_api_server import (
    CERTS,
    V4,
    V5,
    ExecEnd,
    FakeApiServer,
    Opener,
    exited,
    status_reply,
)

POD = Container("ebpfnet-0", "node-1", "node")
SIZE = 64 << 20
PIECE = os.urandom(1 << 20)


@pytest.fixture(params=[[V5, V4], [V4]], ids=["v5", "v4"])
def either(request: pytest.FixtureRequest, fake: FakeApiServer) -> FakeApiServer:
    """A server that speaks both versions, and one that speaks v4 alone."""
    fake.protocols = request.param
    return fake


class Laptop:
    """Pipes for stdin, stdout, stderr and a file for pcap, with what they got."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stdin, self.typing = os.pipe()
        self.reading, self.stdout = os.pipe()
        self.talk, self.stderr = os.pipe()
        self.open = {self.stdin, self.typing, self.reading, self.stdout, self.talk, self.stderr}

    def close(self, *fds: int) -> None:
        for fd in fds:
            self.open.discard(fd)
            os.close(fd)

    def run(self, *, stdin: int | None = -1, pcap: int | None = None, limits: Limits = LIVE) -> int:
        fd = self.stdin if stdin == -1 else stdin
        with LiveStreams(fd, self.stdout, self.stderr, pcap) as streams:
            code = exec_live(self.session, POD, ["netkat", "x"], streams, limits)
            streams.flush()
        return code

    def output(self) -> bytes:
        """All of stdout, after the end."""
        self.close(self.stdout)
        return b"".join(iter(lambda: os.read(self.reading, 65536), b""))

    def said(self) -> bytes:
        self.close(self.stderr)
        return b"".join(iter(lambda: os.read(self.talk, 65536), b""))


@pytest.fixture
def laptop(session: Session) -> Iterator[Laptop]:
    one = Laptop(session)
    yield one
    one.close(*list(one.open))


@contextmanager
def beside(what: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=what)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
        assert not thread.is_alive()


def _pour(laptop: Laptop, size: int) -> None:
    for _ in range(size // len(PIECE)):
        left = memoryview(PIECE)
        while left:
            left = left[os.write(laptop.typing, left) :]
    laptop.close(laptop.typing)


def _digest_of(fd: int, found: list[object]) -> None:
    sum_, size = hashlib.sha256(), 0
    while data := os.read(fd, 1 << 20):
        sum_.update(data)
        size += len(data)
    found += [size, sum_.hexdigest()]


def _there_and_back(laptop: Laptop, size: int) -> float:
    found: list[object] = []
    with beside(lambda: _pour(laptop, size)), beside(lambda: _digest_of(laptop.reading, found)):
        begin = time.perf_counter()
        assert laptop.run() == 0
        seconds = time.perf_counter() - begin
        laptop.close(laptop.stdout)
    assert found == [size, hashlib.sha256(PIECE * (size // len(PIECE))).hexdigest()]
    return seconds


def test_64_megabytes_there_and_back(either: FakeApiServer, laptop: Laptop) -> None:
    either.program = on_the_node(CAT)
    _there_and_back(laptop, SIZE)
    assert either.seen[0].parameters("stdin") == ["true"]
    assert either.seen[0].parameters("tty") == []


def test_there_and_back_in_tls(open_session: Opener) -> None:
    fake = FakeApiServer(tls=True)
    try:
        fake.program = on_the_node(CAT)
        authority = str(CERTS / "ca.pem")
        session = open_session(
            server=fake.url, certificate_authority=authority, tls_server_name="api.fake.test"
        )
        laptop = Laptop(session)
        _there_and_back(laptop, 16 << 20)
        laptop.close(*list(laptop.open))
    finally:
        fake.close()


def test_exit_code_stderr_and_pcap(either: FakeApiServer, laptop: Laptop, tmp_path: Path) -> None:
    either.program = on_the_node(
        "os.write(2, b'why\\n')\n"
        f"os.write(os.open('/proc/self/fd/{frames.PCAP_FD}', os.O_WRONLY), b'packets')\nreturn 9"
    )
    file = os.open(tmp_path / "pcap", os.O_WRONLY | os.O_CREAT)
    assert laptop.run(stdin=None, pcap=file) == 9
    os.close(file)
    assert (tmp_path / "pcap").read_bytes() == b"packets"
    assert (laptop.output(), laptop.said()) == (b"", b"why\n")


@pytest.mark.parametrize("what", ["none", "/dev/null", "file"])
def test_stdin_that_ends_at_once_or_is_a_file(
    either: FakeApiServer, laptop: Laptop, tmp_path: Path, what: str
) -> None:
    either.program = on_the_node(CAT)
    (tmp_path / "file").write_bytes(b"\0text")
    path = tmp_path / "file" if what == "file" else Path("/dev/null")
    with path.open("rb") as file:
        assert laptop.run(stdin=None if what == "none" else file.fileno()) == 0
    assert laptop.output() == (b"\0text" if what == "file" else b"")


def test_what_is_typed_goes_out_at_once(either: FakeApiServer, laptop: Laptop) -> None:
    either.program = on_the_node(CAT)
    with beside(laptop.run):
        for line in (b"one\n", b"two\n"):
            os.write(laptop.typing, line)
            assert os.read(laptop.reading, 100) == line
        laptop.close(laptop.typing)


def test_no_more_of_stdin_is_read_than_can_be_sent(either: FakeApiServer, laptop: Laptop) -> None:
    done = threading.Event()
    wait = "while os.getppid() > 1 and not os.path.exists(PATH): time.sleep(0.01)\nreturn 0"
    path = f"/tmp/ebpfnet-test-{os.getpid()}-{id(done)}"
    either.program = on_the_node(wait.replace("PATH", repr(path)))
    os.set_blocking(laptop.typing, False)
    written = 0

    def type_on() -> None:
        nonlocal written
        last = time.monotonic()
        while time.monotonic() < last + 1:  # until nothing was taken for a second
            try:
                written += os.write(laptop.typing, PIECE)
                last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        Path(path).touch()

    try:
        with beside(type_on):
            assert laptop.run() == 0
    finally:
        Path(path).unlink()
    pipes = 2 * 65536  # of ours and of the program's
    assert frames.WINDOW_BYTES <= written <= frames.WINDOW_BYTES + pipes + 65536


def test_a_session_that_waits_costs_nothing(either: FakeApiServer, laptop: Laptop) -> None:
    either.program = on_the_node("time.sleep(1)\nreturn 0")
    spent = []

    def run() -> None:
        laptop.run()
        spent.append(time.thread_time())

    with beside(run):
        pass
    assert spent[0] < 0.1


def test_output_that_nobody_takes_stops_neither_stdin_nor_signs_of_life(
    either: FakeApiServer, laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "ALIVE_SECONDS", 0.1)
    seen: list[int] = []
    wrote = 0

    def program(end: ExecEnd) -> None:
        nonlocal wrote
        end.write(2, frame(Kind.ALIVE))
        cut, typed = FrameReader("stdin"), 0
        threading.Thread(target=_flood, args=(end,), daemon=True).start()
        for piece in end.stdin():
            for each in cut.feed(piece):
                seen.append(each.kind)
                typed += len(each.payload)
            if typed == 5 and seen.count(Kind.ALIVE) > 10:
                stop.set()
                return

    stop = threading.Event()

    def _flood(end: ExecEnd) -> None:
        nonlocal wrote
        message = b"\x01" + b"x" * 32766
        raw = b"\x82\x7f" + len(message).to_bytes(8, "big") + message
        with contextlib.suppress(OSError):  # until the client is gone
            for _ in range(2000):
                end.sock.sendall(raw)
                wrote += len(message) - 1

    either.program = program
    os.write(laptop.typing, b"typed")
    failed: list[BaseException] = []

    def run() -> None:
        try:
            laptop.run(limits=replace(LIVE, idle=0.5))
        except BaseException as error:
            failed.append(error)

    with beside(run) as running:
        assert stop.wait(20)  # signs of life came for a second while nobody read stdout
        assert wrote < 32 << 20  # and what was not taken stayed there
        with beside(lambda: _digest_of(laptop.reading, [])):
            running.join(20)
            laptop.close(laptop.stdout)
    assert isinstance(failed[0], ExecError)  # the program above just hung up


def test_a_pipe_that_somebody_made_non_blocking(either: FakeApiServer, laptop: Laptop) -> None:
    os.set_blocking(laptop.stdout, False)
    found: list[object] = []

    def program(end: ExecEnd) -> None:
        for _ in range(100):
            end.write(1, b"x" * 32767)
        end.end()

    either.program = program
    with beside(lambda: _digest_of(laptop.reading, found)):
        assert laptop.run() == 0
        laptop.close(laptop.stdout)
    assert found[0] == 100 * 32767


def test_words_of_a_program_that_did_not_start(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        for piece in (b"e", b"bpfnet-node: no such", b" thing\n"):
            end.write(2, piece)
        end.end(exited(2))

    either.program = program
    assert laptop.run() == 2
    assert laptop.said() == b"ebpfnet-node: no such thing\n"


def test_words_between_frames(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        end.write(2, frame(Kind.STDERR, PROGRAM, b"one\n") + b"Traceback: bad\n")
        end.end(exited(1))

    either.program = program
    assert laptop.run() == 1
    assert laptop.said() == b"one\nTraceback: bad\n"


def test_frames_of_a_newer_node_are_skipped(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        end.write(2, b"\xfe\7\0\0\0\3abc")
        end.write(2, frame(ord("v"), 3, b'{"packet": 1}') + frame(ord("l"), 3, bytes(8)))
        end.write(2, frame(Kind.DATA, 9, b"of another stream") + frame(Kind.WINDOW, 9, b"?"))
        end.write(2, frame(Kind.STDERR, PROGRAM, b"one\n"))
        end.end()

    either.program = program
    assert laptop.run() == 0
    assert laptop.said() == b"one\n"


def test_why_the_node_ends_the_session(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        end.write(2, frame(Kind.END, SESSION, b"netkat: the pod goes"))
        end.close()  # before an exit code

    either.program = program
    with pytest.raises(ExecError, match="ended before the exit code"):
        laptop.run()
    assert os.read(laptop.talk, 100) == b"netkat: the pod goes\n"


# --- ends -----------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_program(either: FakeApiServer, laptop: Laptop) -> None:
    started: list[subprocess.Popen[bytes]] = []
    either.program = on_the_node("os.write(1, b'.')\ntime.sleep(60)", started)

    class Interrupted(LiveStreams):
        def stdout(self, data: bytes) -> None:
            raise KeyboardInterrupt

    begin = time.monotonic()
    with (
        Interrupted(laptop.stdin, laptop.stdout, laptop.stderr) as streams,
        pytest.raises(KeyboardInterrupt),
    ):
        exec_live(laptop.session, POD, ["x"], streams)
    assert time.monotonic() - begin < 5
    assert started[0].wait(5) == 128 + 15


def test_nobody_reads_stdout_any_more(either: FakeApiServer, laptop: Laptop) -> None:
    started: list[subprocess.Popen[bytes]] = []
    either.program = on_the_node("while True: os.write(1, b'x' * 4096)", started)
    laptop.close(laptop.reading)
    with pytest.raises(BrokenPipeError):
        laptop.run()
    started[0].wait(5)


def test_stdin_that_cannot_be_read(either: FakeApiServer, laptop: Laptop, tmp_path: Path) -> None:
    either.program = on_the_node("time.sleep(60)")
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(EbpfnetError, match="cannot read stdin: Is a directory"):
        laptop.run(stdin=folder)
    os.close(folder)


def test_the_connection_is_lost(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        end.write(2, frame(Kind.ALIVE))
        end.write(1, b"123")
        end.close()

    either.program = program
    with pytest.raises(ExecError, match="3 bytes of stdout"):
        laptop.run()


def test_reset(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        next(end.stdin())
        end.reset()

    either.program = program
    os.write(laptop.typing, b"x")
    with pytest.raises(ExecError, match="the connection"):
        laptop.run()


def test_no_sign_of_life(either: FakeApiServer, laptop: Laptop) -> None:
    either.program = lambda end: end.wait_for_client_to_leave()
    begin = time.monotonic()
    with pytest.raises(ExecTimeout, match=r"no keepalive for 0\.5 s"):
        laptop.run(limits=replace(LIVE, idle=0.5))
    assert 0.4 < time.monotonic() - begin < 5


def test_refused(either: FakeApiServer, laptop: Laptop) -> None:
    message = 'pods "node-1" is forbidden: User "x" cannot create resource "pods/exec"'
    either.exec_refusal = lambda _: status_reply(403, "Forbidden", message)
    with pytest.raises(Forbidden):
        laptop.run()


def test_the_server_never_closes_after_the_status(either: FakeApiServer, laptop: Laptop) -> None:
    def program(end: ExecEnd) -> None:
        end.ping(b"there?")
        end.write(3, b'{"status":"Success"}')
        end.wait_for_client_to_leave()

    either.program = program
    begin = time.monotonic()
    assert laptop.run() == 0
    assert time.monotonic() - begin < 5
