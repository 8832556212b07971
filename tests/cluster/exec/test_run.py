"""Exec against the fake kubelet-style server: bytes, exit codes, and every way to break off."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec import pump
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import exec_stream, no_such_program
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import (
    ApiError,
    ApiUnreachable,
    ExecError,
    ExecTimeout,
    Forbidden,
    NotFound,
    Unauthorized,
)
from tests.cluster.completed import exec_run
from tests.cluster.fake_api_server import (
    CERTS,
    V4,
    V5,
    ExecEnd,
    FakeApiServer,
    Opener,
    Reply,
    exited,
    status_reply,
)

POD = Container("default", "client", "main")
ALL_BYTES = bytes(range(256))


@pytest.fixture(params=[[V5, V4], [V4]], ids=["v5", "v4"])
def either(request: pytest.FixtureRequest, fake: FakeApiServer) -> FakeApiServer:
    """A server that speaks both versions, and one that speaks v4 alone."""
    fake.protocols = request.param
    return fake


def test_request_is_an_argv_and_a_container(either: FakeApiServer, session: Session) -> None:
    argv = ["sh", "-c", "echo 'a b' && cat /proc/net/arp; # ä%20&x=1", ""]
    exec_run(session, POD, argv)
    [seen] = either.seen
    assert seen.path == "/api/v1/namespaces/default/pods/client/exec"
    assert seen.parameters("command") == argv
    assert seen.parameters("container") == ["main"]
    assert seen.parameters("stdout") == seen.parameters("stderr") == ["true"]
    assert seen.parameters("stdin") == seen.parameters("tty") == []
    assert seen.values("Sec-WebSocket-Protocol") == [f"{V5},{V4}"]
    assert seen.values("Origin") == []


def test_names_cannot_leave_their_place_in_the_path(fake: FakeApiServer, session: Session) -> None:
    exec_run(session, Container("a/b", "../x?y"), ["true"])
    assert fake.seen[0].path == "/api/v1/namespaces/a%2Fb/pods/..%2Fx%3Fy/exec"


def test_every_byte_value_on_both_outputs(either: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        for value in range(256):
            end.write(1, bytes((value,)))
            end.write(2, bytes((255 - value,)))
        end.write(1, ALL_BYTES * 300)
        end.end()

    either.program = program
    done = exec_run(session, POD, ["x"])
    assert done.exit_code == 0
    assert done.stdout == ALL_BYTES + ALL_BYTES * 300
    assert done.stderr == ALL_BYTES[::-1]


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 137, 255])
def test_exit_codes(either: FakeApiServer, session: Session, code: int) -> None:
    def program(end: ExecEnd) -> None:
        end.write(2, b"why")
        end.end(exited(code))

    either.program = program
    done = exec_run(session, POD, ["x"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"", b"why")


def test_fragments_and_empty_frames(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"")
        end.write(2, b"")
        end.write_fragments(b"\x01ab", b"", b"c", b"d")
        end.write_fragments(b"", b"\x02err", b"or")  # the channel byte comes in a continuation
        end.write_fragments(b"")
        end.write_fragments(b"\x03" + b'{"status":', b'"Success"}')
        end.close()

    fake.program = program
    done = exec_run(session, POD, ["x"])
    assert (done.stdout, done.stderr, done.exit_code) == (b"abcd", b"error", 0)


def test_many_fragments_of_one_message_cost_no_more_than_messages(
    fake: FakeApiServer, session: Session
) -> None:
    pieces = [b"\x01"] + [b"x" * 100] * 20_000

    def program(end: ExecEnd) -> None:
        end.write_fragments(*pieces)
        end.end()

    fake.program = program
    assert len(exec_run(session, POD, ["x"]).stdout) == 2_000_000


def test_channels_that_are_not_ours_are_ignored(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(255, b"\x01")
        end.write(7, b"?")
        end.write(1, b"out")
        end.end()

    fake.program = program
    assert exec_run(session, POD, ["x"]).stdout == b"out"


def test_pings_are_answered_while_stdin_waits(fake: FakeApiServer, session: Session) -> None:
    pongs = []

    def program(end: ExecEnd) -> None:
        end.ping(b"are you there?")
        got = 0
        for frame in end.frames():
            if frame.opcode.name == "PONG":
                pongs.append(bytes(frame.data))
            elif bytes(frame.data) == b"\xff\0":
                break
            else:
                got += len(frame.data) - 1
        end.write(1, str(got).encode())
        end.end()

    fake.program = program
    done = exec_run(session, POD, ["x"], stdin=b"s" * 3_000_000)
    assert done.stdout == b"3000000"
    assert pongs == [b"are you there?"]


# --- size and time ----------------------------------------------------------------------------


def _blob(end: ExecEnd, size: int) -> None:
    frame = _raw_frame(b"\x01" + b"x" * 32768)
    for _ in range(size // 32768):
        end.sock.sendall(frame)
    end.end()


def _raw_frame(payload: bytes) -> bytes:
    # Made once, so that what is measured is our side.
    return b"\x82\x7f" + len(payload).to_bytes(8, "big") + payload


def _seconds_for(fake: FakeApiServer, session: Session, size: int) -> float:
    fake.program = lambda end: _blob(end, size)
    best = float("inf")
    for _ in range(3):
        begun = time.thread_time()  # an exec runs in the calling thread alone
        done = exec_run(session, POD, ["x"])
        best = min(best, time.thread_time() - begun)
        assert len(done.stdout) == size
        assert done.stdout.count(b"x") == size
    return best


def test_time_grows_with_the_output_and_no_faster(fake: FakeApiServer, session: Session) -> None:
    small = _seconds_for(fake, session, 8 << 20)
    large = _seconds_for(fake, session, 64 << 20)
    # Linear is 8; the library's own exec is 64 here (0.46 s against 29.7 s).
    assert large / small < 24


def test_streaming_keeps_memory_flat(fake: FakeApiServer, session: Session) -> None:
    fake.program = lambda end: _blob(end, 64 << 20)
    total = 0

    def count(piece: bytes) -> None:
        nonlocal total
        total += len(piece)

    exec_stream(session, POD, ["warm", "up"], on_stdout=count, on_stderr=count)
    total = 0
    tracemalloc.start()
    try:
        code = exec_stream(session, POD, ["x"], on_stdout=count, on_stderr=count)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (code, total) == (0, 64 << 20)
    assert peak < 4 << 20


def test_a_frame_is_bounded(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"x")
        end.sock.sendall(b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"\x01")
        end.wait_for_client_to_leave()

    fake.program = program
    with pytest.raises(ExecError, match="the server started a frame of 1099511627776 bytes"):
        exec_run(session, POD, ["x"], limits=Limits(idle=5))


def test_size_is_bounded(fake: FakeApiServer, session: Session) -> None:
    fake.program = lambda end: _blob(end, 8 << 20)
    with pytest.raises(ExecError, match="more than 1000000 bytes"):
        exec_run(session, POD, ["x"], limits=Limits(max_bytes=1_000_000))


def test_what_a_sink_raises_is_not_taken_for_the_network(
    fake: FakeApiServer, session: Session
) -> None:
    fake.program = lambda end: _blob(end, 1 << 20)

    def full(_: bytes) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        exec_stream(session, POD, ["x"], on_stdout=full, on_stderr=full)


# --- stdin ------------------------------------------------------------------------------------


def test_half_close_ends_stdin_on_v5(fake: FakeApiServer, session: Session) -> None:
    ends = []

    def cat(end: ExecEnd) -> None:
        for piece in end.stdin():
            end.write(1, piece)
        ends.append(end)
        end.end()

    fake.program = cat
    text = ALL_BYTES * 40_000  # 10 MB: both directions full at once
    assert exec_run(session, POD, ["cat"], stdin=text).stdout == text
    assert ends[0].stdin_closed
    assert ends[0].seen.parameters("stdin") == ["true"]


def test_empty_stdin_is_closed_at_once(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"".join(end.stdin()) + b"end")
        end.end()

    fake.program = program
    assert exec_run(session, POD, ["cat"], stdin=b"").stdout == b"end"


def test_program_that_answers_without_reading_does_not_lock_up(
    fake: FakeApiServer, session: Session
) -> None:
    def program(end: ExecEnd) -> None:
        _blob(end, 8 << 20)
        end.wait_for_client_to_leave()  # unread bytes at close would make TCP reset

    fake.program = program
    assert len(exec_run(session, POD, ["x"], stdin=b"s" * (4 << 20)).stdout) == 8 << 20


def test_v4_cannot_end_stdin_and_says_so(fake: FakeApiServer, session: Session) -> None:
    fake.protocols = [V4]
    with pytest.raises(ExecError, match=r"only v4\.channel\.k8s\.io") as caught:
        exec_run(session, POD, ["cat"], stdin=b"text")
    assert "stops reading by itself" in caught.value.hint


def test_v4_takes_stdin_of_a_program_that_ends_by_itself(
    fake: FakeApiServer, session: Session
) -> None:
    fake.protocols = [V4]

    def head(end: ExecEnd) -> None:
        got = b""
        for piece in end.stdin():
            got += piece
            if got.endswith(b"exit 3\n"):
                break
        end.write(1, got)
        end.end(exited(3))

    fake.program = head
    done = exec_run(session, POD, ["sh", "-s"], stdin=b"true\nexit 3\n", reads_to_end=False)
    assert (done.exit_code, done.stdout) == (3, b"true\nexit 3\n")


# --- what goes wrong --------------------------------------------------------------------------


def test_connection_that_ends_without_a_status(either: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"12345")
        end.write(2, b"12")
        end.close()

    either.program = program
    with pytest.raises(ExecError, match="5 bytes of stdout and 2 of stderr received") as caught:
        exec_run(session, POD, ["x"])
    assert "exit code" in caught.value.message


def test_connection_that_ends_without_even_a_close_frame(
    fake: FakeApiServer, session: Session
) -> None:
    fake.program = lambda end: end.write(1, b"123")  # and the socket is closed
    with pytest.raises(ExecError, match="3 bytes of stdout"):
        exec_run(session, POD, ["x"])


def test_status_without_a_close_frame_is_enough(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"out")
        end.write(3, b'{"status":"Success"}')

    fake.program = program
    assert exec_run(session, POD, ["x"]).stdout == b"out"


def test_server_that_never_closes_after_the_status(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"out")
        end.write(3, b'{"status":"Success"}')
        end.wait_for_client_to_leave()

    fake.program = program
    assert exec_run(session, POD, ["x"]).stdout == b"out"


def test_output_after_the_status_is_read(
    fake: FakeApiServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "_CLOSE_GRACE_SECONDS", 0.4)
    pause = threading.Event()

    def program(end: ExecEnd) -> None:
        end.write(3, b'{"status":"Success"}')
        for _ in range(8):
            pause.wait(0.1)  # longer than the grace in all
            end.write(1, b"out")
        end.wait_for_client_to_leave()

    fake.program = program
    assert exec_run(session, POD, ["x"]).stdout == b"out" * 8


def test_reset_half_way(fake: FakeApiServer, session: Session) -> None:
    first = threading.Event()

    def program(end: ExecEnd) -> None:
        end.write(1, b"x" * 1000)
        first.wait(10)
        end.reset()

    fake.program = program
    with pytest.raises(ExecError, match="1000 bytes of stdout and 0 of stderr received"):
        exec_stream(session, POD, ["x"], on_stdout=lambda _: first.set(), on_stderr=print)


@pytest.mark.parametrize(
    "status",
    [b"not JSON", b"[]", b'"Success"', b"{", b"\xff\xfe", b"[" * 100_000],
)
def test_status_that_is_no_status(fake: FakeApiServer, session: Session, status: bytes) -> None:
    fake.program = lambda end: end.end(status)
    with pytest.raises(ExecError, match="status is not JSON"):
        exec_run(session, POD, ["x"])


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"status": "Failure", "reason": "NonZeroExitCode"},
        {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [None]}},
        {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "many"}]},
        },
    ],
)
def test_status_without_an_exit_code(
    fake: FakeApiServer, session: Session, status: dict[str, object]
) -> None:
    fake.program = lambda end: end.end(status)
    with pytest.raises(ExecError, match="did not run"):
        exec_run(session, POD, ["x"])


def test_program_that_is_not_there(either: FakeApiServer, session: Session) -> None:
    # As runc says it through containerd 1.6.
    message = (
        "Internal error occurred: error executing command in container: failed to exec in"
        ' container: failed to start exec "5c": OCI runtime exec failed: exec failed: unable to'
        ' start container process: exec: "ip": executable file not found in $PATH: unknown'
    )
    either.program = lambda end: end.end(
        {"status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    )
    with pytest.raises(ExecError, match="executable file not found") as caught:
        exec_run(session, POD, ["ip", "route"])
    assert no_such_program(caught.value)
    assert not no_such_program(ExecError("the connection broke"))


def test_silence(fake: FakeApiServer, session: Session) -> None:
    def program(end: ExecEnd) -> None:
        end.write(1, b"hello")
        end.wait_for_client_to_leave()

    fake.program = program
    with pytest.raises(ExecTimeout, match=r"no output for 0\.2 s; 5 bytes of stdout"):
        exec_run(session, POD, ["x"], limits=Limits(idle=0.2))


def test_pings_are_silence(fake: FakeApiServer, session: Session) -> None:
    gone = threading.Event()

    def program(end: ExecEnd) -> None:
        try:
            while not gone.wait(0.01):
                end.ping()
        except OSError:
            pass

    fake.program = program
    try:
        with pytest.raises(ExecTimeout, match=r"no output for 0\.3 s"):
            exec_run(session, POD, ["x"], limits=Limits(idle=0.3))
    finally:
        gone.set()


def test_program_that_goes_on_and_on(fake: FakeApiServer, session: Session) -> None:
    gone = threading.Event()

    def program(end: ExecEnd) -> None:
        try:
            while not gone.wait(0.01):
                end.write(1, b"tick\n")
        except OSError:
            pass

    fake.program = program
    try:
        with pytest.raises(ExecTimeout, match=r"did not end within 0\.3 s; \d+ bytes"):
            exec_run(session, POD, ["x"], limits=Limits(idle=5, total=0.3))
    finally:
        gone.set()


def test_the_time_to_connect_is_part_of_the_total(fake: FakeApiServer, session: Session) -> None:
    pause = threading.Event()
    fake.exec_refusal = lambda _: pause.wait(2) or None  # type: ignore[assignment, return-value]
    fake.program = lambda end: end.wait_for_client_to_leave()
    begin = time.monotonic()
    with pytest.raises(ExecTimeout, match=r"did not end within 2\.2 s"):
        exec_run(session, POD, ["x"], limits=Limits(total=2.2))
    assert time.monotonic() - begin < 2 + 2.2


def test_stdin_that_nobody_takes(fake: FakeApiServer, session: Session) -> None:
    gone = threading.Event()
    fake.program = lambda end: gone.wait(20)  # type: ignore[assignment, return-value]
    try:
        with pytest.raises(ExecTimeout, match="no output for"):
            exec_run(session, POD, ["x"], stdin=b"s" * (32 << 20), limits=Limits(idle=0.3))
    finally:
        gone.set()


def test_server_that_accepts_and_says_nothing(open_session: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        session = open_session(server=f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(ExecTimeout, match=r"no answer to exec within 0\.2 s"):
            exec_run(session, POD, ["x"], limits=Limits(connect=0.2))


def test_server_that_never_finishes_tls(open_session: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        session = open_session(
            server=f"https://127.0.0.1:{mute.getsockname()[1]}", insecure_skip_tls_verify=True
        )
        with pytest.raises(ApiUnreachable, match=r"no answer within 0\.2 s"):
            exec_run(session, POD, ["x"], limits=Limits(connect=0.2))


def test_nobody_listens(open_session: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    session = open_session(server=f"http://127.0.0.1:{port}")
    with pytest.raises(ApiUnreachable, match="connection refused"):
        exec_run(session, POD, ["x"])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_server_that_is_no_api_server(open_session: Opener, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        session = open_session(server=f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises((ExecError, ApiError)):
            exec_run(session, POD, ["x"])
        thread.join()


def test_server_that_speaks_neither_version(fake: FakeApiServer, session: Session) -> None:
    fake.protocols = []
    with pytest.raises(ExecError, match="does not speak exec over websockets"):
        exec_run(session, POD, ["x"])


# --- refusals -----------------------------------------------------------------------------------


def test_forbidden_names_the_verb_that_the_server_checked(
    fake: FakeApiServer, session: Session
) -> None:
    for verb in ("get", "create"):
        message = (
            f'pods "client" is forbidden: User "eve" cannot {verb} resource "pods/exec" in API'
            ' group "" in the namespace "default"'
        )
        reply = status_reply(403, "Forbidden", message, name="client", kind="pods")
        fake.exec_refusal = lambda _, reply=reply: reply  # type: ignore[misc]
        with pytest.raises(Forbidden) as caught:
            exec_run(session, POD, ["x"])
        error = caught.value
        assert (error.verb, error.resource, error.namespace) == (verb, "pods/exec", "default")
        assert '"get" and "create"' in error.hint


@pytest.mark.parametrize(("busy", "tries"), [(2, 3), (99, 4)])
def test_a_busy_server_is_asked_again(
    fake: FakeApiServer, session: Session, busy: int, tries: int
) -> None:
    asked: list[object] = []

    def refuse(seen: object) -> Reply | None:
        asked.append(seen)
        return Reply(429, b"busy", {"Retry-After": "0"}) if len(asked) <= busy else None

    fake.exec_refusal = refuse  # type: ignore[assignment]
    if busy < tries:
        assert exec_run(session, POD, ["x"]).exit_code == 0
    else:
        with pytest.raises(ApiError, match="busy"):
            exec_run(session, POD, ["x"])
    assert len(asked) == tries


def test_a_busy_server_costs_no_more_than_the_time_to_connect(
    fake: FakeApiServer, session: Session
) -> None:
    fake.exec_refusal = lambda _: Reply(429, b"busy", {"Retry-After": "3"})
    with pytest.raises(ApiError, match="busy"):
        exec_run(session, POD, ["x"], limits=Limits(connect=1))
    assert len(fake.seen) == 1


def test_other_refusals(fake: FakeApiServer, session: Session) -> None:
    def refuse(reply: Reply) -> None:
        fake.exec_refusal = lambda _: reply

    refuse(status_reply(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(Unauthorized):
        exec_run(session, POD, ["x"])
    refuse(status_reply(404, "NotFound", 'pods "client" not found', name="client", kind="pods"))
    with pytest.raises(NotFound, match='pod "client" not found in namespace default'):
        exec_run(session, POD, ["x"])
    refuse(status_reply(400, "BadRequest", "container main is not valid for pod client"))
    with pytest.raises(ApiError, match="container main is not valid"):
        exec_run(session, POD, ["x"])
    refuse(status_reply(500, "InternalError", "error dialing backend: no route to host"))
    with pytest.raises(ApiError, match="error dialing backend: no route to host") as caught:
        exec_run(session, POD, ["x"])
    assert caught.value.status == 500
    refuse(Reply(302, b"", {"Location": "http://127.0.0.1:1/login"}))
    with pytest.raises(ExecError, match="does not speak exec"):
        exec_run(session, POD, ["x"])


# --- who asks, and how many at once -------------------------------------------------------------


def test_impersonation_reaches_exec(fake: FakeApiServer, open_session: Opener) -> None:
    session = open_session(
        server=fake.url,
        token="t0ken",
        as_user="jane@example.org",
        as_groups=("dev", "system:masters"),
        as_uid="42",
        as_user_extra=("acme.com/project=one", "acme.com/project=two", "scopes=ä b"),
    )
    exec_run(session, POD, ["x"])
    [seen] = fake.seen
    assert seen.values("Authorization") == ["Bearer t0ken"]
    assert seen.values("Impersonate-User") == ["jane@example.org"]
    assert seen.values("Impersonate-Group") == ["dev", "system:masters"]
    assert seen.values("Impersonate-Uid") == ["42"]
    assert seen.values("Impersonate-Extra-acme.com%2Fproject") == ["one", "two"]
    [scopes] = seen.values("Impersonate-Extra-scopes")
    assert scopes.encode("latin-1").decode() == "ä b"


def test_tls_with_client_certificate_and_server_name(open_session: Opener) -> None:
    fake = FakeApiServer(tls=True, client_certificate=True)
    try:
        fake.program = lambda end: _blob(end, 1 << 20)
        session = open_session(
            server=fake.url,
            certificate_authority=str(CERTS / "ca.pem"),
            client_certificate=str(CERTS / "client.pem"),
            client_key=str(CERTS / "client.key"),
            tls_server_name="api.fake.test",
        )
        assert len(exec_run(session, POD, ["x"]).stdout) == 1 << 20

        def cat(end: ExecEnd) -> None:
            for piece in end.stdin():
                end.write(1, piece)
            end.end()

        fake.program = cat
        text = ALL_BYTES * 10_000
        assert exec_run(session, POD, ["cat"], stdin=text).stdout == text
        assert fake.peer_names == ["alice", "alice"]
    finally:
        fake.close()


def test_tls_that_is_not_trusted(open_session: Opener) -> None:
    fake = FakeApiServer(tls=True)
    try:
        session = open_session(server=fake.url, certificate_authority=str(CERTS / "ca.pem"))
        with pytest.raises(ApiUnreachable, match="certificate is not trusted"):
            exec_run(session, POD, ["x"])
    finally:
        fake.close()


def test_sixteen_at_once_beside_rest_calls(fake: FakeApiServer, session: Session) -> None:
    together = threading.Barrier(16, timeout=30)

    def program(end: ExecEnd) -> None:
        together.wait()  # all of them run now, or none goes on
        word = end.argv[-1].encode()
        for _ in range(50):
            end.write(1, word * 100)
            end.write(2, word)
        end.end(exited(int(word)))

    fake.program = program
    fake.routes["/api/v1/pods"] = Reply(
        200, {"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}]}
    )
    api = Api(session)
    with ThreadPoolExecutor(20) as pool:
        execs = [pool.submit(exec_run, session, POD, ["echo", f"{n}"]) for n in range(10, 26)]
        lists = [pool.submit(api.pods) for _ in range(40)]
        for n, running in enumerate(execs, start=10):
            done = running.result()
            assert done.exit_code == n
            assert done.stdout == f"{n}".encode() * 5000
            assert done.stderr == f"{n}".encode() * 50
        for running_list in lists:
            assert [pod["metadata"]["name"] for pod in running_list.result()] == ["a"]


def test_closing_the_session_ends_what_runs(fake: FakeApiServer, session: Session) -> None:
    started = threading.Event()

    def program(end: ExecEnd) -> None:
        started.set()
        end.wait_for_client_to_leave()

    fake.program = program
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(exec_run, session, POD, ["x"])
        assert started.wait(10)
        session.close()
        with pytest.raises(ExecError):
            running.result(10)
    with pytest.raises(ApiUnreachable, match="was closed"):
        exec_run(session, POD, ["x"])


def test_credentials_are_renewed_once_after_a_401(
    fake: FakeApiServer, open_session: Opener, tmp_path: object
) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    token = tmp_path / "token"
    token.write_text("old\n")
    config = tmp_path / "config"
    config.write_text(
        f"""
        current-context: c
        contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
        clusters: [{{name: k, cluster: {{server: "{fake.url}"}}}}]
        users: [{{name: u, user: {{tokenFile: token}}}}]
        """
    )
    session = open_session(kubeconfig=str(config))

    def refuse(seen: object) -> Reply | None:
        if fake.seen[-1].values("Authorization") == ["Bearer new"]:
            return None
        token.write_text("new\n")
        return status_reply(401, "Unauthorized", "Unauthorized")

    fake.exec_refusal = refuse  # type: ignore[assignment]
    assert exec_run(session, POD, ["x"]).exit_code == 0
    assert [seen.values("Authorization") for seen in fake.seen] == [["Bearer old"], ["Bearer new"]]
