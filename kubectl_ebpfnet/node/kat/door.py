"""netkat without its start: the node pod's first process has all imported and forks (hold.py).

    netkat (this, as a file) ──(stdin, stdout, stderr; words)──▶ hold.py ──fork──▶ netkat.main

Run as a file by `python3 -I -S`, it imports nothing of ours: starting Python so takes a tenth of
what pyroute2's import takes. Where nobody holds the door it becomes
`python3 -m kubectl_ebpfnet.node.netkat`. When this process ends, in whatever way, the fork does.
Over the socket: a byte with three descriptors, then the length of what follows (4 bytes, this
machine's order) and the working directory and the words, each with a NUL; back comes the exit code.
"""

from __future__ import annotations

import _socket  # what socket is made of, without the enumerations that take 6 of its 8 ms
import os
import sys

SOCKET = "/run/ebpfnet/node.sock"
_LONGEST = 1 << 20


def main(words: list[str]) -> int:
    """Have netkat run, with this process's streams. Returns its exit code."""
    try:
        way = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        way.connect(os.environ.get("EBPFNET_NODE_SOCKET", SOCKET))
        fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in range(3))
        way.sendmsg([b"k"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        said = b"".join(os.fsencode(word) + b"\0" for word in (_here(), *words))
        way.sendall(len(said).to_bytes(4, sys.byteorder) + said)
        code = way.recv(1)
        return code[0] if code else 1
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    own = [sys.executable, "-m", "kubectl_ebpfnet.node.netkat", *words]
    return os.execv(own[0], own)  # noqa: S606  it becomes that program and does not return


def serve(connection: _socket.socket, streams: tuple[int, ...]) -> int:
    """hold.py's end, in a fork of its own: be netkat for whoever is at the door.

    Args:
        connection: the door's socket, after its first byte.
        streams: descriptors to be 0, 1 and 2.
    """
    import threading

    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    size = int.from_bytes(_exactly(connection, 4), sys.byteorder)
    if size > _LONGEST:
        return 1
    here, *words = (os.fsdecode(word) for word in _exactly(connection, size).split(b"\0")[:-1])
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    try:
        os.chdir(here)
    except OSError:
        print(f"netkat: {here} cannot be entered here; --pcap writes to /", file=sys.stderr)
        os.chdir("/")
    from kubectl_ebpfnet.node import netkat

    code = netkat.main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 0xFF]))
    return code


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it has been removed


def _exactly(connection: _socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            os._exit(1)  # the other side has gone
        data += piece
    return data


def _end_with(connection: _socket.socket) -> None:
    connection.recv(1)  # nothing more is sent this way: it returns at the other side's end
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
