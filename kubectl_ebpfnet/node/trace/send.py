"""Send the packets of `trace --send`, by sockets of a pod's network namespace, and say what became
of each.

Sources: icmp(7), raw(7), tcp(7), udp(7), RFC 792, RFC 4443.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kubectl_ebpfnet.model.events import SentPacket
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, Flow
from kubectl_ebpfnet.model.protocol.tracing import SendRequest
from kubectl_ebpfnet.node.host import netns

Report = Callable[[SentPacket], object]
_AT_ONCE = 64
_ECHO = {4: (8, 0), 6: (128, 129)}  # request, reply
_UNREACHABLE = {4: (3, 11), 6: (1, 3)}  # destination unreachable, time exceeded
_REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET)
_LARGEST = 65_000


class Sender:
    """Sends in threads of its own; `done` when every packet has its outcome."""

    def __init__(self, request: SendRequest, namespace: str | None, report: Report) -> None:
        """Prepare.

        Args:
            request: what to send.
            namespace: path of the network namespace, None for the current one.
            report: is called in other threads, for each packet when its outcome is known.
        """
        self._request, self._namespace, self._report = request, namespace, report
        self._id = int.from_bytes(os.urandom(2), "big") or 1
        self._stop, self.done = threading.Event(), threading.Event()
        self._family = socket.AF_INET6 if request.destination.version == 6 else socket.AF_INET

    def start(self) -> None:
        """Begin to send."""
        threading.Thread(target=self._run, name="send", daemon=True).start()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()

    def _run(self) -> None:
        try:
            with netns.inside(self._namespace), ThreadPoolExecutor(_AT_ONCE) as pool:
                for number in range(1, self._request.count + 1):
                    # The socket is of this thread's namespace, whoever uses it.
                    sock, problem = self._socket()
                    pool.submit(self._attempt, number, sock, problem)
                    if number < self._request.count and self._stop.wait(self._request.interval):
                        break
        except Exception as error:
            self._say(1, time.monotonic_ns(), None, "error", error=str(error))
        finally:
            self.done.set()

    def _socket(self) -> tuple[socket.socket | None, str]:
        asked = self._request
        if asked.protocol in (ICMP, ICMPV6):
            kind, protocol = socket.SOCK_RAW, asked.protocol
        else:
            kind = socket.SOCK_STREAM if asked.protocol == TCP else socket.SOCK_DGRAM
            protocol = asked.protocol
        sock = None
        try:
            sock = socket.socket(self._family, kind | socket.SOCK_CLOEXEC, protocol)
            sock.settimeout(asked.timeout)
            if asked.source_port and kind != socket.SOCK_RAW:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("", asked.source_port))
            # An address for the socket before a packet: connect(2) of TCP sends one.
            if kind != socket.SOCK_STREAM:
                sock.connect((str(asked.destination), asked.port or 0))
        except OSError as error:
            if sock is not None:
                sock.close()
            return None, error.strerror or str(error)
        return sock, ""

    def _attempt(self, number: int, sock: socket.socket | None, problem: str) -> None:
        begun = time.monotonic_ns()
        if sock is None:
            self._say(number, begun, None, "error", error=problem)
            return
        with sock:
            try:
                outcome, error = self._exchange(number, sock)
            except TimeoutError:
                outcome, error = "timeout", ""
            except OSError as failure:
                outcome = "refused" if failure.errno in _REFUSED else "error"
                error = failure.strerror or str(failure)
            seconds = (time.monotonic_ns() - begun) / 1e9 if outcome == "answered" else None
            self._say(number, begun, sock, outcome, seconds, error)

    def _exchange(self, number: int, sock: socket.socket) -> tuple[str, str]:
        asked = self._request
        if asked.protocol in (ICMP, ICMPV6):
            return self._echo(number, sock)
        if asked.protocol == TCP:
            sock.connect((str(asked.destination), asked.port))
            return "answered", ""
        payload = asked.payload.encode() or bytes(min(asked.size, _LARGEST))
        sock.send(payload)
        sock.recv(_LARGEST)
        return "answered", ""

    def _echo(self, number: int, sock: socket.socket) -> tuple[str, str]:
        version = self._request.destination.version
        request, reply = _ECHO[version]
        data = bytes(index & 0xFF for index in range(min(self._request.size, _LARGEST)))
        sequence = number & 0xFFFF
        head = struct.pack("!BBHHH", request, 0, 0, self._id, sequence)
        if version == 4:
            head = struct.pack("!BBHHH", request, 0, _checksum(head + data), self._id, sequence)
        sock.send(head + data)
        ends = time.monotonic() + self._request.timeout
        while (left := ends - time.monotonic()) > 0:
            sock.settimeout(left)
            message = sock.recv(_LARGEST)
            if version == 4:
                message = message[(message[0] & 15) * 4 :]
            if len(message) < 8:
                continue
            kind, code, _, identifier, echoed = struct.unpack_from("!BBHHH", message)
            if (kind, identifier, echoed) == (reply, self._id, sequence):
                return "answered", ""
            if kind in _UNREACHABLE[version] and self._quotes(message[8:], version, sequence):
                return "refused", f"ICMP type {kind}, code {code}"
        raise TimeoutError

    def _quotes(self, packet: bytes, version: int, sequence: int) -> bool:
        header = (packet[0] & 15) * 4 if version == 4 and packet else 40
        if len(packet) < header + 8:
            return False
        _, _, _, identifier, echoed = struct.unpack_from("!BBHHH", packet, header)
        return (identifier, echoed) == (self._id, sequence)

    def _say(
        self,
        number: int,
        begun: int,
        sock: socket.socket | None,
        outcome: str,
        seconds: float | None = None,
        error: str = "",
    ) -> None:
        asked = self._request
        source, port = "::" if self._family == socket.AF_INET6 else "0.0.0.0", 0  # noqa: S104
        if sock is not None:
            with contextlib.suppress(OSError):
                source, port = sock.getsockname()[:2]
        echo = asked.protocol in (ICMP, ICMPV6)
        flow = Flow(
            asked.protocol,
            ipaddress.ip_address(source.partition("%")[0]),
            self._id if echo else port or None,
            asked.destination,
            None if echo else asked.port,
        )
        self._report(SentPacket(number, begun, flow, outcome, seconds, error))


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
