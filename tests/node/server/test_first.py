"""A node pod's first process and what is brought to it, as in an image that has Python alone."""

from __future__ import annotations

import ast
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.nodepods import sides
from kubectl_ebpfnet.model.protocol.node_side import own_digest
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL
from kubectl_ebpfnet.node.server import room

SERVER = Path(sides.__file__).parents[2] / "node/server"
BARE = Path(os.path.realpath(sys.executable))
"""A Python that knows neither our package nor pyroute2: not that of the virtual environment."""
LINKS = {"protocol": PROTOCOL, "id": 1, "argv": ["ebpfnet-node", "links"]}


def until(what: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def argv(words: tuple[str, ...], python: Path = BARE) -> list[str]:
    assert words[0] == "python3"
    return [str(python), *words[1:]]


class NodePod:
    """The first process, and execs beside it."""

    def __init__(self, folder: Path, idle: int, python: Path = BARE) -> None:
        self.folder = folder
        self.env = {"EBPFNET_NODE_FOLDER": str(folder), "PATH": os.environ["PATH"]}
        self.process = self.start(*argv(sides.first_process(idle), python))

    def start(self, *words: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd="/", env=self.env, stdin=stdin, stdout=pipe, stderr=pipe)

    def exec(self, words: tuple[str, ...], stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        with self.start(*argv(words), stdin=subprocess.PIPE) as one:
            out, err = one.communicate(stdin, timeout=60)
            return one.returncode, out, err

    def ask(self, *questions: dict[str, Any]) -> list[Any]:
        text = "".join(f"{json.dumps(each)}\n" for each in (*questions, {"end": True}))
        code, out, err = self.exec(sides.session_argv(), text.encode())
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def bring(
        self, data: bytes | None = None, size: int | None = None, name: str = ""
    ) -> tuple[int, bytes]:
        data = sides.packed() if data is None else data
        words = named(name, sides.bring_argv(len(data) if size is None else size))
        code, _, err = self.exec(words, data)
        return code, err


def named(name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Words of a client of another version, whose node side has this name instead of ours."""
    return tuple(name if name and word == own_digest() else word for word in words)


class Held:
    """A session that goes on until its end; a node side has greeted it."""

    def __init__(self, pod: NodePod, name: str = "") -> None:
        words = named(name, sides.session_argv())
        self.process = pod.start(*argv(words), stdin=subprocess.PIPE)

    def __enter__(self) -> Held:
        assert self.process.stdout is not None
        assert own_digest() in self.process.stdout.readline().decode()
        return self

    def end(self) -> None:
        self.process.communicate(b'{"end": true}\n', timeout=20)

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    """The pod's volume; a socket's path is short (unix(7)), and pytest's folder long."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def pod(folder: Path) -> Iterator[NodePod]:
    """One that stays, in an image with Python alone."""
    one = NodePod(folder, 0)
    yield one
    one.process.terminate()
    assert one.process.wait(20) == 0
    for stream in (one.process.stdout, one.process.stderr):
        assert stream is not None
        stream.close()


def test_the_bare_python_has_nothing_of_ours() -> None:
    asked = [str(BARE), "-I", "-c", "import pyroute2"]
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 1


def test_a_pod_without_a_node_side_says_so_and_answers_once_it_was_brought(pod: NodePod) -> None:
    assert pod.ask(LINKS) == [{"protocol": 0, "version": "", "digest": ""}]
    assert pod.bring() == (0, b"")
    greeting, answer, *facts = pod.ask(LINKS)
    assert greeting["digest"] == own_digest()  # of what came, by its own count
    assert answer["exit_code"] == 0
    assert "lo" in [fact["name"] for fact in facts]
    assert pod.bring() == (0, b"")  # again, by somebody else
    shell = [str(pod.folder / "bin/netkat"), "-h"]
    said = subprocess.run(shell, env=pod.env, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("usage: netkat")
    size = sum(each.stat().st_blocks * 512 for each in pod.folder.rglob("*"))
    assert size < 12 << 20  # of the volume's 16 MiB


def test_what_came_in_part_is_no_node_side(pod: NodePod) -> None:
    until((pod.folder / "first.sock").exists)
    code, err = pod.bring(sides.packed()[:-1], len(sides.packed()))
    assert code == 1
    assert b"bytes came" in err
    code, err = pod.bring(b"no zip at all")
    assert (code, err.count(b"\n")) == (1, 1), err  # a sentence
    assert b"File is not a zip file" in err
    assert pod.ask() == [{"protocol": 0, "version": "", "digest": ""}]
    assert [path.name for path in pod.folder.iterdir()] == ["first.sock"]


def test_node_sides_that_nobody_uses_make_room(pod: NodePod) -> None:
    until((pod.folder / "first.sock").exists)
    old, served, young = (pod.folder / (letter * 64) for letter in "abc")
    for each in (old, served, young):
        each.mkdir()
    (served / "node.sock").touch()
    for each in (old, served):
        os.utime(each, (0, 0))
    assert pod.bring() == (0, b"")
    assert {each.name[0] for each in pod.folder.iterdir() if len(each.name) == 64} == {
        "b", "c", own_digest()[0],
    }  # fmt: skip


@pytest.fixture
def small_pod(folder: Path) -> Iterator[NodePod]:
    """One that stays, with a volume as small as a node pod's."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    one = NodePod(folder, 0)
    try:
        yield one
        one.process.terminate()
        assert one.process.communicate(timeout=20) == (b"", b"")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.kernel
def test_versions_without_a_session_make_room_and_one_in_use_stays(small_pod: NodePod) -> None:
    until((small_pod.folder / "first.sock").exists)
    first, *others = (letter * 64 for letter in "abcd")
    assert small_pod.bring(name=first) == (0, b"")
    with Held(small_pod, first):
        for name in others:
            assert small_pod.bring(name=name) == (0, b"")
            with Held(small_pod, name):
                assert (small_pod.folder / first).exists()
    left = {each.name for each in small_pod.folder.iterdir() if len(each.name) == 64}
    assert left == {first, others[-1]}


@pytest.mark.kernel
def test_versions_that_are_all_in_use_leave_no_room_and_that_is_said(small_pod: NodePod) -> None:
    until((small_pod.folder / "first.sock").exists)
    first, second, third = (letter * 64 for letter in "abc")
    for name in (first, second):
        assert small_pod.bring(name=name) == (0, b"")
    with Held(small_pod, first), Held(small_pod, second):
        code, err = small_pod.bring(name=third)
    why = f"it cannot be unpacked into {small_pod.folder}: {os.strerror(errno.ENOSPC)}\n"
    assert (code, err.decode()) == (1, why)
    assert not list(small_pod.folder.glob("new.*"))


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_client_that_is_killed_leaves_a_netkat_or_another_try(pod: NodePod, renames: int) -> None:
    until((pod.folder / "first.sock").exists)
    text = (
        f"import os\nreal, left = os.rename, list(range({renames}))\n"
        "def rename(*words):\n    left.pop() if left else os._exit(9)\n    real(*words)\n"
        "os.rename = rename\n"
    )
    words = tuple(
        text + word if "import zipfile" in word else word
        for word in sides.bring_argv(len(sides.packed()))
    )
    assert pod.exec(words, sides.packed())[0] == (0 if renames == 2 else 9)
    assert pod.bring() == (0, b"")
    shell = [str(pod.folder / "bin/netkat"), "-h"]
    said = subprocess.run(shell, env=pod.env, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_shells_netkat_whose_node_side_made_room_says_so(pod: NodePod) -> None:
    until((pod.folder / "first.sock").exists)
    assert pod.bring() == (0, b"")
    shutil.rmtree(pod.folder / own_digest())
    shell = [str(pod.folder / "bin/netkat"), "-h"]
    said = subprocess.run(shell, env=pod.env, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert "the node side was removed" in said.stderr


def test_what_a_container_left_that_ran_before_is_removed(folder: Path) -> None:
    (folder / "first.sock").touch()
    (folder / "a").mkdir()
    (folder / "a" / "node.sock").touch()
    (folder / "bin").mkdir()
    one = NodePod(folder, 1)
    out, err = one.process.communicate(timeout=20)
    assert (one.process.returncode, out, err) == (0, b"", b"")
    assert not (folder / "a").exists()


def test_it_ends_when_nobody_comes_and_with_the_last_node_side(folder: Path) -> None:
    one = NodePod(folder, 1, Path(sys.executable))
    image = folder / "image/node.sock"
    with Held(one) as of_image:
        assert one.bring() == (0, b"")
        with Held(one):
            assert image.exists()
            of_image.end()
            until(lambda: not image.exists())  # its time without a session is over
            assert one.process.poll() is None  # somebody is at the other one
    assert one.process.communicate(timeout=30) == (b"", b"")
    assert one.process.returncode == 0


@pytest.fixture
def pretended(folder: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Fakes that listen as a node side of our digest does, and as the first process."""
    side = folder / own_digest()
    side.mkdir()
    with listening(side / "node.sock") as node, listening(folder / "first.sock") as first:
        yield node, first


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(10)
    return listener


def asked(first: socket.socket) -> None:
    with first.accept()[0] as connection:
        connection.settimeout(10)
        assert connection.recv(100).decode() == own_digest()
        connection.send(b"\0")


def test_a_session_that_meets_a_node_side_as_it_ends_gets_the_next_one(
    folder: Path, pretended: tuple[socket.socket, socket.socket]
) -> None:
    """It was not taken yet, and the first process does not know of the end at once."""
    node, first = pretended
    path = folder / own_digest() / "node.sock"
    env = {"EBPFNET_NODE_FOLDER": str(folder)}
    words = argv(sides.session_argv())
    with subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert select.select([node], [], [], 10)[0]
        node.close()
        path.unlink()
        asked(first)  # it takes the old one for a running one, and starts none
        asked(first)
        with listening(path) as node, node.accept()[0] as session:
            session.settimeout(10)
            for fd in socket.recv_fds(session, 100, 3)[1]:
                os.close(fd)
            session.send(bytes([7]))
            assert one.wait(10) == 7
        assert one.stdout.read() == b""


def test_what_another_client_removes_at_the_same_time_is_no_trouble(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.os, "listdir", lambda _: ["gone"])
    monkeypatch.setattr(room.os.path, "isdir", lambda _: True)  # as it was a moment ago
    room.make_room(str(folder), own_digest())


def test_a_node_side_that_was_killed_makes_room_and_is_started_again(pod: NodePod) -> None:
    until((pod.folder / "first.sock").exists)
    assert pod.bring() == (0, b"")
    first = pod.process.pid
    with pod.start(*argv(sides.session_argv()), stdin=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert own_digest() in session.stdout.readline().decode()
        (killed,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        os.kill(int(killed), signal.SIGKILL)
        session.communicate(b'{"end": true}\n', timeout=20)
    # bring.py takes a node side that has a socket for one in use.
    until(lambda: not (pod.folder / own_digest() / "node.sock").exists())
    greeting, _, *_ = pod.ask(LINKS)
    assert greeting["digest"] == own_digest()


def test_the_images_own_node_side_answers_where_there_is_one(folder: Path) -> None:
    one = NodePod(folder, 60, Path(sys.executable))
    try:
        (greeting,) = one.ask()
        assert (greeting["protocol"], greeting["digest"]) == (PROTOCOL, own_digest())
        assert (folder / "image" / "node.sock").exists()
    finally:
        one.process.send_signal(signal.SIGTERM)
        one.process.communicate(timeout=20)


def test_an_older_python_is_named_in_one_sentence() -> None:
    text = sides.first_process(60)[3].replace("OLDEST = (3, 11)", "OLDEST = (3, 99)")
    done = subprocess.run(
        [str(BARE), "-I", "-c", text, "60"], capture_output=True, text=True, check=False
    )
    here = ".".join(map(str, sys.version_info[:2]))
    assert done.returncode == 1
    assert done.stderr == f"its Python is {here}, the node side needs 3.99 or later\n"


@pytest.mark.parametrize("name", ["first", "bring", "room", "connect"])
def test_they_import_the_standard_library_alone(name: str) -> None:
    steps = ast.parse((SERVER / f"{name}.py").read_text()).body
    imported = {each.name for step in steps if isinstance(step, ast.Import) for each in step.names}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert not [step for step in steps if isinstance(step, ast.ImportFrom)]


def test_the_words_of_an_exec_fit_into_its_address() -> None:
    from urllib.parse import urlencode

    for words in (sides.session_argv(), sides.bring_argv(1 << 20)):
        assert len(urlencode([("command", word) for word in words])) < 4000
