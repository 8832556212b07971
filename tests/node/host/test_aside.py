"""Nothing forks a process that has threads, and what is done aside stays there."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kubectl_ebpfnet.node
from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node import capabilities
from kubectl_ebpfnet.node.host import programs
from kubectl_ebpfnet.node.host.aside import aside
from kubectl_ebpfnet.node.netkat import sysctls
from kubectl_ebpfnet.node.netkat.redirect import clsact

NODE = Path(kubectl_ebpfnet.node.__file__).parent
ALONE = {
    "server/first.py": "the first process of a node pod has one thread",
    "server/zygote.py": "so has a node side, which it starts",
    "server/framed_session.py": "the process of an exec, before it has done anything",
    "netkat/exec.py": "netkat with --exec, before its capture starts a thread",
    "server/helper.py": "the process that answers questions: its threads are those of probes alone",
}


@pytest.fixture
def with_a_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another thread runs, and who forks fails."""

    def fork() -> int:
        raise AssertionError("a process with threads forks")

    monkeypatch.setattr(os, "fork", fork)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_who_forks_has_no_threads() -> None:
    text = {str(file.relative_to(NODE)): file.read_text() for file in NODE.rglob("*.py")}
    assert {name for name, code in text.items() if re.search(r"os\.fork(pty)?\(", code)} <= set(
        ALONE
    )
    assert not [name for name, code in text.items() if "preexec_fn" in code]


def test_a_working_directory_of_its_own(tmp_path: Path) -> None:
    here = os.getcwd()

    def work() -> str:
        os.chdir(tmp_path)
        done = subprocess.run(("pwd", "-P"), capture_output=True, check=True, text=True)
        return done.stdout.strip()

    assert aside(work) == str(tmp_path.resolve())
    assert os.getcwd() == here


def test_what_is_raised_aside_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)


@pytest.mark.usefixtures("with_a_thread")
def test_the_root_of_the_node_is_tried_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[str] = []
    monkeypatch.setattr(os, "chroot", lambda path: there.append(str(path)))
    capabilities._chroot()
    assert there == ["/proc/1/root"]

    def refused(path: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chroot", refused)
    with pytest.raises(KernelError, match="change the root to /proc/1/root: no"):
        capabilities._chroot()


@pytest.mark.usefixtures("with_a_thread")
def test_a_program_of_the_node_runs_without_a_fork(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    roots: list[object] = []
    monkeypatch.setattr(programs, "HOST_PROGRAMS", {("pwd",)})
    monkeypatch.setattr(programs, "_elsewhere", lambda: True)
    monkeypatch.setattr(programs, "_ROOT", Path("/"))
    monkeypatch.setattr(os, "chroot", roots.append)
    here = os.getcwd()
    assert programs.run(("pwd",)) == (0, b"/\n", "")
    assert roots == [Path("/")]
    assert os.getcwd() == here

    def refused(path: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chroot", refused)
    with pytest.raises(KernelError, match="pwd cannot be run in the node's root") as caught:
        programs.run(("pwd",))
    assert caught.value.hint == "CAP_SYS_CHROOT allows it"


@pytest.mark.usefixtures("with_a_thread")
def test_settings_are_written_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def written(settings: dict[str, str]) -> dict[str, OSError]:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            return {name: OSError(errno.EROFS, "read-only") for name in settings}
        return {}

    def own_mounts(work: Any, own: int) -> Any:
        assert own == 0x00020000
        return aside(work)

    monkeypatch.setattr(sysctls, "_written", written)
    monkeypatch.setattr(sysctls, "_remount", lambda: None)
    monkeypatch.setattr(sysctls, "aside", own_mounts)
    assert sysctls.write({"net/ipv4/ip_forward": "1"}) == {}
    assert len(set(threads)) == 2

    def refused(work: Any, own: int) -> Any:
        raise PermissionError(errno.EPERM, "no")

    threads.clear()
    monkeypatch.setattr(sysctls, "aside", refused)
    failed = sysctls.write({"net/ipv4/ip_forward": "1"})
    assert failed["net/ipv4/ip_forward"].errno == errno.EPERM


@pytest.mark.usefixtures("with_a_thread")
def test_a_filter_is_watched_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        clsact, "create_program_array", lambda *_: os.open("/dev/null", os.O_RDONLY)
    )
    monkeypatch.setattr(clsact, "_add_filter", lambda *_: 7)
    cleared: list[tuple[int, ...]] = []
    monkeypatch.setattr(clsact, "remove_filters", lambda *of: cleared.append(of))
    one = clsact.Filter(1, 2)
    one.watch()
    child = one._child
    assert child is not None
    one.remove()
    assert cleared == [(2, 7)]
    assert child.returncode is not None
