"""The first process of a node pod, in any image with Python: its text is the pod's command
(python3 -I -c TEXT IDLE), so older ones must read it too. It starts node sides, the image's own and
those that clients bring (bring.py), each a process that serves sessions (zygote.py); the pod ends
when all have ended.

    /run/ebpfnet/first.sock         takes the name of the node side that is to be started
    /run/ebpfnet/image/node.sock    sessions of the image's own node side, if it has one
    /run/ebpfnet/DIGEST/            a node side that was brought, and node.sock for its sessions

IDLE are the seconds without a session after which a node side ends, and this with the last one. 0
is for a pod that stays: what was brought ends after a while, the rest does not.
"""

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import socket
import sys
import time

FOLDER = os.environ.get("EBPFNET_NODE_FOLDER", "/run/ebpfnet")
OLDEST = (3, 11)
NAME_BYTES = 100
BROUGHT_SECONDS = 600.0  # in a pod that stays
FOR_EVER = 1e9


def start(name: str, idle: float) -> int:
    """Start a node side, and return its pid."""
    words = ["-P", "-m", "kubectl_ebpfnet.node", "hold", "--idle", str(idle),
             "--socket", f"{FOLDER}/{name}/node.sock"]  # fmt: skip
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    if name != "image":
        environment["PYTHONPATH"] = f"{FOLDER}/{name}"
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(sys.executable, [sys.executable, *words], environment)  # noqa: S606
        finally:
            os._exit(1)
    return pid


def empty() -> None:
    """Remove what a container left that ran in this pod before."""
    for name in os.listdir(FOLDER):
        path = f"{FOLDER}/{name}"
        if not os.path.isdir(path):
            os.unlink(path)
        elif name != "bin":
            shutil.rmtree(path, ignore_errors=True)


def in_image() -> bool:
    """Tell whether the image has a node side, of whatever version."""
    try:
        return importlib.util.find_spec("kubectl_ebpfnet.node") is not None
    except ImportError:
        return False


def asked_for(listener: socket.socket) -> str:
    """Return the name of a node side that a session asks for, "" for none that is there."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(1)
        try:
            name = connection.recv(NAME_BYTES).decode("ascii", "replace")
            connection.send(b"\0")
        except OSError:
            return ""
    ok = name.isalnum() and os.path.isdir(f"{FOLDER}/{name}")
    return name if ok else ""


def main(idle: float) -> int:
    """Start node sides until all have ended. Returns the exit code."""
    if sys.version_info < OLDEST:
        here, needed = (".".join(map(str, each[:2])) for each in (sys.version_info, OLDEST))
        sys.exit(f"its Python is {here}, the node side needs {needed} or later")
    stays = idle <= 0
    empty()
    running: dict[str, int] = {}
    ended: list[bool] = []
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.umask(0o077)
    if in_image():
        os.makedirs(f"{FOLDER}/image")
        running["image"] = start("image", FOR_EVER if stays else idle)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{FOLDER}/first.sock")
    listener.listen(16)
    begun = time.monotonic()
    while not ended and (stays or running or time.monotonic() - begun < idle):
        ready = select.select([listener, awake], [], [], 1.0)[0]
        if awake in ready:
            awake.recv(1000)
        if listener in ready:
            name = asked_for(listener)
            if name and name not in running:
                running[name] = start(name, BROUGHT_SECONDS if stays else idle)
        reap(running)
    for pid in running.values():
        os.kill(pid, signal.SIGTERM)
    for pid in running.values():
        os.waitpid(pid, 0)
    return 0


def reap(running: "dict[str, int]") -> None:
    """Forget node sides that have ended, with the socket of one that was killed: bring.py takes a
    node side that has one for one in use."""
    for name, pid in list(running.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del running[name]
            with contextlib.suppress(OSError):
                os.unlink(f"{FOLDER}/{name}/node.sock")


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
