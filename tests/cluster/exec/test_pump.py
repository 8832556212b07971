"""The pump under every exec: pings and blocked writes, in TCP and TLS, limits, and no busy loop."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec import pump
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import LIVE, exec_live, exec_stream
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import ExecTimeout
from tests.cluster.fake_api_server import CERTS, ExecEnd, FakeApiServer, Opener

POD = Container("default", "client", "main")
STDIN_BYTES = 24 << 20
PIECE = 32768


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
def served(request: pytest.FixtureRequest, open_session: Opener) -> Iterator[tuple[Any, Session]]:
    """A server and a session with it."""
    fake = FakeApiServer(tls=request.param)
    authority = str(CERTS / "ca.pem") if request.param else None
    yield (
        fake,
        open_session(
            server=fake.url, certificate_authority=authority, tls_server_name="api.fake.test"
        ),
    )
    fake.close()


class Typed:
    """Streams whose stdin has a message whenever `pause` seconds have passed.

    Attributes:
        blocked: the last message was not sent when the pump waited.
        output: bytes of stdout so far.
        changed: notified at a change of these.
    """

    def __init__(self, size: int, pause: float = 0) -> None:
        """`size` is the number of bytes of stdin in all."""
        self.left = size
        self.pause = pause
        self.blocked = False
        self.output = b""
        self.changed = threading.Condition()

    def until(self, what: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, 20)

    def wait_for(self, sending: bool) -> tuple[list[int], float | None]:
        with self.changed:
            self.blocked = sending
            self.changed.notify_all()
        return [], None if sending or not self.left else self.pause

    def message(self, ready: Sequence[int]) -> bytes:
        piece = min(self.left, PIECE)
        self.left -= piece
        return b"\0" + b"s" * piece if piece else b""

    def has_room(self) -> bool:
        return True

    def stdout(self, data: bytes) -> None:
        with self.changed:
            self.output += data
            self.changed.notify_all()

    def stderr(self, data: bytes) -> None:
        raise AssertionError(data)

    def parting(self) -> bytes:
        return b""


def test_a_thousand_pings_during_a_blocked_write_are_answered_after_it(
    served: tuple[FakeApiServer, Session],
) -> None:
    fake, session = served
    streams, size, pongs = Typed(STDIN_BYTES), [0], []

    def program(end: ExecEnd) -> None:
        streams.until(lambda: streams.blocked)  # nothing is read: the buffers are full
        for number in range(1000):
            end.ping(b"%d" % number)
        end.write(1, b"x")  # so that it is known when the pings before it are read
        streams.until(lambda: streams.output)
        for frame in end.frames():
            if frame.opcode.name == "PONG":
                pongs.append(int(frame.data))
            else:
                assert bytes(frame.data) == b"\0" + b"s" * PIECE
                size[0] += PIECE
            if size[0] == STDIN_BYTES:
                break
        end.end()

    fake.program = program
    assert exec_live(session, POD, ["x"], streams, Limits(20, 20, 60)) == 0
    assert size == [STDIN_BYTES]
    assert pongs[-1] == 999
    assert len(pongs) < 10  # those that nobody reads do not pile up


def test_pings_break_no_write_that_is_blocked_within_a_record_of_tls(
    open_session: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, found = 16 << 20, [0]
    read = threading.Semaphore(0)

    def program(end: ExecEnd) -> None:
        frames = (frame for frame in end.frames() if frame.opcode.name == "BINARY")
        for stop in range(1 << 20, 8 << 20, 1 << 20):
            # Each of these takes a step of the client, which sends first: soon it is blocked.
            for _ in range(80):
                end.ping(b"?")
                end.write(1, b"x")
                assert read.acquire(timeout=20)
            while found[0] < stop:  # then it is blocked at another byte of a frame
                found[0] += len(next(frames).data) - 1
        for frame in frames:
            found[0] += len(frame.data) - 1
            if bytes(frame.data) == b"\xff\0":
                break
        end.end()

    fake = FakeApiServer(tls=True)
    try:
        fake.program = program
        session = open_session(
            server=fake.url,
            certificate_authority=str(CERTS / "ca.pem"),
            tls_server_name="api.fake.test",
        )
        dial = session.dial

        def narrow(seconds: float) -> socket.socket:
            sock = dial(seconds)
            # The system says "writable" when it has room for less than a record of TLS.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            return sock

        monkeypatch.setattr(session, "dial", narrow)
        code = exec_stream(
            session, POD, ["x"],
            on_stdout=lambda _: read.release(), on_stderr=lambda _: None, stdin=b"s" * size,
            limits=Limits(idle=20),
        )  # fmt: skip
    finally:
        fake.close()
    assert (code, found) == (0, [size + 1])


def test_a_ping_within_a_message(served: tuple[FakeApiServer, Session]) -> None:
    fake, session = served
    pongs: list[bytes] = []

    def program(end: ExecEnd) -> None:
        end.protocol.send_binary(b"\x01ab", fin=False)
        end.ping(b"within")
        pongs.append(bytes(next(end.frames()).data))
        end.protocol.send_continuation(b"cd", fin=False)
        end.ping(b"again")
        pongs.append(bytes(next(end.frames()).data))
        end.protocol.send_continuation(b"", fin=True)
        end.end()

    fake.program = program
    out: list[bytes] = []
    assert exec_stream(session, POD, ["x"], on_stdout=out.append, on_stderr=out.append) == 0
    assert (out, pongs) == ([b"ab", b"cd"], [b"within", b"again"])


@pytest.mark.parametrize("live", [False, True], ids=["known", "live"])
def test_a_silent_program_takes_few_turns(
    served: tuple[FakeApiServer, Session], monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    fake, session = served
    fake.program = lambda end: end.wait_for_client_to_leave()
    waits = []

    class Counted(selectors.PollSelector):
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().select(timeout)

    monkeypatch.setattr(pump, "_Selector", Counted)
    run: Callable[[], int] = partial(
        exec_stream, session, POD, ["x"],
        on_stdout=print, on_stderr=print, stdin=b"s", limits=Limits(idle=0.5),
    )  # fmt: skip
    if live:
        run = partial(exec_live, session, POD, ["x"], Typed(PIECE), replace(LIVE, idle=0.5))
    with pytest.raises(ExecTimeout, match=r"for 0\.5 s"):
        run()
    assert len(waits) < 10, waits


def test_stdin_that_is_taken_is_progress_unless_the_program_sends_keepalives(
    served: tuple[FakeApiServer, Session],
) -> None:
    fake, session = served

    def program(end: ExecEnd) -> None:
        enough = time.monotonic() + 1.5
        with suppress(OSError):  # the client is gone
            for _ in end.stdin():
                if time.monotonic() > enough:
                    break
        end.end()

    fake.program = program
    limits = Limits(idle=1)
    assert exec_live(session, POD, ["x"], Typed(STDIN_BYTES, pause=0.05), limits) == 0
    with pytest.raises(ExecTimeout, match="no keepalive for 1 s; 0 bytes"):
        exec_live(
            session, POD, ["x"], Typed(STDIN_BYTES, pause=0.05), replace(limits, keepalives=True)
        )
