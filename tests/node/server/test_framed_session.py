"""A program behind framed streams: its bytes, its exit code, every end that its client can have."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import (
    PACKETS,
    PROGRAM,
    SESSION,
    Frame,
    FrameReader,
    Kind,
    frame,
)

SECONDS = 20.0
STDIN_END = frame(Kind.END, PROGRAM)


def data_frame(data: bytes) -> bytes:
    return frame(Kind.DATA, PROGRAM, data)


class Session:
    """The client's side of one session with a program.

    Attributes:
        process: the supervisor.
        found: frames of stderr so far.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.found: list[Frame] = []
        self._cut = FrameReader("stderr")

    def send(self, *pieces: bytes) -> None:
        assert self.process.stdin is not None
        for piece in pieces:
            self.process.stdin.write(piece)
        self.process.stdin.flush()

    def read_frames(self, seconds: float = SECONDS) -> bool:
        """Take a piece of stderr; False at its end."""
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        assert select.select([fd], [], [], seconds)[0], "nothing came"
        data = os.read(fd, 1 << 16)
        self.found += self._cut.feed(data)
        return bool(data)

    def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < deadline
            assert self.read_frames(), f"it ended: {self.found}"

    def end(self) -> int:
        """The exit code, once everything that it said is read."""
        while self.read_frames():
            pass
        return self.process.wait(SECONDS)

    def bytes_of(self, kind: Kind, stream: int = PROGRAM) -> bytes:
        return b"".join(each.payload for each in self.found if each[:2] == (kind, stream))

    @property
    def taken(self) -> int:
        windows = [each for each in self.found if each.kind == Kind.WINDOW]
        assert {each.stream for each in windows} <= {PROGRAM}
        return sum(frames.window_size(each.payload) for each in windows)

    @property
    def child(self) -> int:
        """The program's pid."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(listed.split()[0])


@contextmanager
def session(
    body: str, silence: float = 30, alive: float = frames.ALIVE_SECONDS
) -> Iterator[Session]:
    """A session with a Python function of this body.

    Args:
        body: of the function, which has `words` and returns an exit code.
        silence: seconds after which a client that said nothing is gone.
        alive: seconds between signs of life.
    """
    text = "import os, sys, time, signal\ndef program(words):\n" + "".join(
        f"    {line}\n" for line in body.splitlines()
    )
    text += "from kubectl_ebpfnet.node.server import framed_session as frames\n"
    text += f"frames.frames.ALIVE_SECONDS = {alive}\n"
    text += f"sys.exit(frames.run(['a', 'b'], program, {silence}))\n"
    with subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Session(process)
        finally:
            process.kill()


CAT = "while data := os.read(0, 65536):\n    os.write(1, data)\nreturn 0"


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(what: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def test_stdin_comes_out_of_its_frames_and_ends_by_a_frame() -> None:
    with session(CAT) as one:
        one.send(data_frame(b"\0frame\n"), frame(Kind.ALIVE), data_frame(b"2"))
        one.send(STDIN_END)
        assert one.end() == 0
        assert one.process.stdout is not None
        assert one.process.stdout.read() == b"\0frame\n2"
        assert one.taken == 8


def test_frames_of_a_newer_client_are_skipped() -> None:
    unknown = b"\xfe\7\0\0\0\3abc"
    with session(CAT) as one:
        one.send(unknown, data_frame(b"1"), frame(Kind.DATA, 9, b"other"), frame(Kind.END, 9))
        one.send(data_frame(b"2"), STDIN_END)
        assert one.end() == 0
        assert one.process.stdout is not None
        assert one.process.stdout.read() == b"12"


def test_frames_may_come_in_any_pieces() -> None:
    with session(CAT) as one:
        for byte in data_frame(b"xyz") + STDIN_END:
            one.send(bytes([byte]))
        assert one.end() == 0
        assert one.process.stdout is not None
        assert one.process.stdout.read() == b"xyz"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 7", 7),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)", 137),
        ("raise ValueError('why')", 1),
    ],
)
def test_exit_codes(body: str, code: int) -> None:
    with session(body) as one:
        assert one.end() == code
        assert (b"ValueError: why" in one.bytes_of(Kind.STDERR)) == ("why" in body)


def test_words_stderr_and_pcap() -> None:
    body = (
        "print(words, file=sys.stderr)\n"
        f"fd = os.open('/proc/self/fd/{frames.PCAP_FD}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n"
        "os.write(fd, b'\\0packets' * 50_000)\nreturn 0"
    )
    with session(body) as one:
        assert one.end() == 0
        assert one.bytes_of(Kind.STDERR) == b"['a', 'b']\n"
        assert one.bytes_of(Kind.DATA, PACKETS) == b"\0packets" * 50_000


def test_what_the_program_does_not_read_is_not_taken_and_the_rest_is_still_read() -> None:
    body = (
        "def leave(*_):\n    os.write(2, b'asked to end')\n    time.sleep(0.3)\n    os._exit(5)\n"
        "signal.signal(signal.SIGTERM, leave)\nos.write(1, b'ready')\ntime.sleep(60)"
    )
    with session(body) as one:
        assert one.process.stdout is not None
        assert one.process.stdout.read(5) == b"ready"
        for _ in range(frames.WINDOW_BYTES // 65536):
            one.send(data_frame(b"x" * 65536))
        one.send(frame(Kind.STOP))  # behind all of it
        one.until(lambda: one.bytes_of(Kind.STDERR))
        assert one.taken < 200_000
        assert one.end() == 5


def test_a_client_that_does_not_read_stderr_does_not_stop_stdin() -> None:
    body = "sys.stderr.write('e' * 3_000_000)\nreturn 0"
    both = (
        "import threading\nt = threading.Thread(target=sys.stderr.write, args=('e' * 3000000,))\n"
    )
    with session(both + "t.start()\n" + CAT.replace("return 0", "t.join()\nreturn 0")) as one:
        one.send(*[data_frame(b"x" * 60_000)] * 20, STDIN_END)
        assert one.process.stdout is not None
        assert one.process.stdout.read(1_200_000) == b"x" * 1_200_000
        assert one.end() == 0
        assert one.bytes_of(Kind.STDERR) == b"e" * 3_000_000
    with session(body) as other:
        assert other.end() == 0
        assert len(other.bytes_of(Kind.STDERR)) == 3_000_000


def test_signs_of_life() -> None:
    assert frames.ALIVE_SECONDS * 3 < frames.SILENCE_SECONDS  # some may come late
    with session("time.sleep(60)", alive=0.5) as one:
        one.until(lambda: one.found)
        begin = time.monotonic()
        one.until(lambda: one.found.count((Kind.ALIVE, SESSION, b"")) == 3)
        assert 0.9 < time.monotonic() - begin < 4


# --- ends -----------------------------------------------------------------------------------------


def test_stdin_that_breaks_off_ends_the_program() -> None:
    with session("time.sleep(60)") as one:
        one.until(lambda: one.found)
        child = one.child
        assert one.process.stdin is not None
        one.process.stdin.close()
        assert one.end() == 128 + signal.SIGTERM
        assert gone(child)


def test_a_program_that_does_not_hear_sigterm_is_killed() -> None:
    with session("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1)\nsys.stdout.flush()\n"
                 "while True: time.sleep(60)") as one:  # fmt: skip
        assert one.process.stdout is not None
        assert one.process.stdout.readline() == b"1\n"
        one.send(frame(Kind.STOP))
        assert one.end() == 128 + signal.SIGKILL


def test_silence_ends_the_program_and_signs_of_life_keep_it() -> None:
    with session("time.sleep(60)", silence=1) as one:
        one.until(lambda: one.found)
        begin = time.monotonic()
        while time.monotonic() < begin + 1.5:
            one.send(frame(Kind.ALIVE))
            time.sleep(0.2)
        assert one.process.poll() is None
        begin = time.monotonic()
        assert one.end() == 128 + signal.SIGTERM
        assert (
            one.bytes_of(Kind.END, SESSION)
            == b"the session ends: nothing came from the client for 1 s"
        )
        assert 0.7 < time.monotonic() - begin < 5


def test_no_frames_end_the_program() -> None:
    with session("time.sleep(60)") as one:
        one.send(b"GET / HTTP/1.1\r\n\r\n")
        assert one.end() == 128 + signal.SIGTERM
        assert b"no frame begins with b'GET / '" in one.bytes_of(Kind.END, SESSION)


def test_the_program_ends_with_what_started_it() -> None:
    with session("time.sleep(60)") as one:
        one.until(lambda: one.found)
        child = one.child
        one.process.kill()
        eventually(lambda: gone(child))


def test_it_ends_with_the_pod() -> None:
    """Whose first process says so by SIGTERM (zygote.py)."""
    with session("os.write(1, b'ready')\ntime.sleep(60)") as one:
        assert one.process.stdout is not None
        assert one.process.stdout.read(5) == b"ready"
        one.until(lambda: one.found)
        one.process.terminate()
        assert one.end() == 128 + signal.SIGTERM
        assert one.bytes_of(Kind.END, SESSION) == b"the session ends: the node pod is taken away"


def test_the_entry_of_the_node_side() -> None:
    argv = [sys.executable, "-m", "kubectl_ebpfnet.node", "netkat", frames.OPTION, "--no-such"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as process:
        one = Session(process)
        assert one.end() == 1
        assert b"no such option: --no-such" in one.bytes_of(Kind.STDERR)


def test_without_frames_it_is_netkat() -> None:
    for words, said in ((["-h"], b"usage: netkat"), (["--no-such"], b"no such option")):
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_ebpfnet.node", "netkat", *words],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert said in done.stdout + done.stderr
        assert done.returncode == (0 if words == ["-h"] else 1)
