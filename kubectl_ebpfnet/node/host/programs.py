"""Run the node's own programs, e.g. its iptables-save.

Only the argvs of HOST_PROGRAMS (model/protocol/questions.py) run, never through a shell. They run
in the root of the node's first process, so that the node's iptables with the node's backend
answers, but in the requested network namespace, which the caller has entered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol.questions import HOST_PROGRAMS
from kubectl_ebpfnet.node.host.aside import aside

_SECONDS = 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROOT = Path("/proc/1/root")


def run(argv: tuple[str, ...]) -> tuple[int, bytes, str]:
    """Run one of HOST_PROGRAMS.

    Returns:
        Exit code, stdout, and the last line of stderr.

    Raises:
        KernelError: the argv is no HOST_PROGRAMS, or the program is missing, fails to start, or
            does not end.
    """
    if argv not in HOST_PROGRAMS:
        raise KernelError(f"{argv[0]} with these words is not run on a node")
    try:
        os.stat(_ROOT)
    except PermissionError:
        raise KernelError(
            f"{argv[0]}: the node's own files cannot be seen",
            hint="CAP_SYS_PTRACE lets the node side look into /proc/1/root",
        ) from None
    except FileNotFoundError:
        pass
    try:
        program = _found(argv[0])
        with open(os.devnull, "rb") as nothing:
            done = aside(lambda: _run((program, *argv[1:]), nothing, elsewhere=_elsewhere()))
    except subprocess.TimeoutExpired:
        raise KernelError(f"{argv[0]} did not end within {_SECONDS} s") from None
    except OSError as error:
        raise KernelError(f"{argv[0]} cannot be run on the node: {error}") from None
    errors = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return done.returncode, done.stdout, errors


def _elsewhere() -> bool:
    """Tell whether process 1 has another root directory, i.e. this is a container."""
    try:
        return not os.path.samefile("/proc/1/root", "/")
    except OSError:
        return False


def _found(name: str) -> str:
    """Return the path of a program in the node's root."""
    root = _ROOT if _elsewhere() else Path("/")
    for folder in _PATH.split(":"):
        if os.path.lexists(root / folder.lstrip("/") / name):
            return f"{folder}/{name}"
    if root == Path("/") and (here := shutil.which(name, path=_PATH)):
        return here
    raise KernelError(f"the node has no {name}")


def _run(
    argv: tuple[str, ...], stdin: BinaryIO, *, elsewhere: bool
) -> subprocess.CompletedProcess[bytes]:
    """Run a program, from the node's root if `elsewhere`."""
    if elsewhere:
        try:
            os.chroot(_ROOT)
        except OSError:
            raise KernelError(
                f"{Path(argv[0]).name} cannot be run in the node's root",
                hint="CAP_SYS_CHROOT allows it",
            ) from None
        os.chdir("/")
    return subprocess.run(  # noqa: S603  the argv is one of a constant list
        argv, stdin=stdin, capture_output=True, timeout=_SECONDS, check=False,
        env={"PATH": _PATH, "LC_ALL": "C"},
    )  # fmt: skip
