"""netkat without its start: the node pod's first process has all imported and forks (hold.py).

    door.pl ──(its words)──▶ hold.py's waiting child, which takes its streams and is netkat

Over the socket: `k`, the length of what follows (4 bytes, this machine's order) and the words, each
with a NUL. Back come `+` when netkat begins, and at its end its exit code, a byte. Who is at the
door, the kernel says (SO_PEERCRED, unix(7)); its stdin, stdout and stderr are copied out of it
(pidfd_getfd(2), Linux 5.6, by CAP_SYS_PTRACE), so that it need not know how to hand them over. When
it ends, in whatever way, netkat does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
import threading

from kubectl_ebpfnet.errors import EbpfnetError

_LONGEST = 1 << 20
_NOWHERE = "192.0.2.1"  # nobody's (RFC 5737)
_PIDFD_GETFD = 438  # the number of the call on every architecture
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_libc = ctypes.CDLL(None, use_errno=True)


def serve(connection: socket.socket) -> int:
    """Be netkat for whoever is at the door, in a process of its own.

    Args:
        connection: the door's socket, after its first byte.

    Returns:
        Its exit code; 1 and no `+` when its streams cannot be had: it starts a netkat then.
    """
    size = int.from_bytes(_exactly(connection, 4), sys.byteorder)
    if size > _LONGEST:
        return 1
    words = [os.fsdecode(word) for word in _exactly(connection, size).split(b"\0")[:-1]]
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    client = _CREDENTIALS.unpack(credentials)[0]
    try:
        _take_streams(client)
    except OSError:
        return 1
    connection.sendall(b"+")
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    try:
        os.chdir(f"/proc/{client}/cwd")
    except OSError:
        print("netkat: its folder cannot be entered; --pcap writes to /", file=sys.stderr)
        os.chdir("/")
    from kubectl_ebpfnet.node import netkat

    code = netkat.main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 0xFF]))
    return code


def rehearse() -> None:
    """Do what a connection needs, as far as nothing comes of it.

    A fork shares its parent's memory until it writes to it, and Python writes to whatever it looks
    at. What is touched now is this process's own when a session comes.
    """
    from kubectl_ebpfnet.model import netkat
    from kubectl_ebpfnet.node.kat import assembler, changes, names, nextway, redirect
    from kubectl_ebpfnet.node.kat.flow import Flow, neutral

    request = netkat.request(["-N", _NOWHERE, "9"])
    assert request is not None
    names.addresses(request)
    with contextlib.suppress(EbpfnetError):  # mostly for want of a route
        nextway.to_peer(request, _NOWHERE)
    peer = changes.packed(_NOWHERE)
    flow = Flow(4, socket.IPPROTO_TCP, (peer,), (9, 9), peer, 9, neutral(peer))
    redirect.to_wire(flow, 1)
    redirect.to_private(flow, 1, helper=assembler.REDIRECT_PEER)


def _take_streams(pid: int) -> None:
    """Have another process's first three descriptors as ours; those that it has closed, closed."""
    process = os.pidfd_open(pid)
    try:
        for number in range(3):
            fd = _libc.syscall(_PIDFD_GETFD, process, number, 0)
            if fd >= 0:
                os.dup2(fd, number)
                os.close(fd)
            elif ctypes.get_errno() == errno.EBADF:
                os.close(number)
            else:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(process)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            os._exit(1)  # the other side has gone
        data += piece
    return data


def _end_with(connection: socket.socket) -> None:
    connection.recv(1)  # nothing more is sent this way: it returns at the other side's end
    os._exit(1)
