"""Connections that bypass this node's netfilter, sockets and CNI, and their outcome; or, where that
is asked, one of this node's own stack.

The path is netkat's (node/netkat, docs/netkat.md): a private netns with the node's address, and the
requested next hop. The handshake is the kernel's own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netkat import request as netkat
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.probe import icmp_errors

if TYPE_CHECKING:
    from kubectl_ebpfnet.node.netkat.setup import NetkatSetup

_WORDS = (
    "probe ADDRESS PORT [via ADDRESS,…] [wait SECONDS] [http PATH] [udp yes] [own yes] [number N]"
)
_LONGEST_ANSWER = 4096
_MOST_HOPS = 64
_UDP_WORD = b"clientip\n\n\n\n"
"""agnhost's netexec answers with the client's address. The word is as long as a DNS header (RFC
1035, 4.1.1), since name servers ignore shorter ones, and many answer that the opcode is unknown."""
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _ProbeOptions:
    address: str
    port: int
    via: tuple[str, ...] = ()
    wait: float = 5.0
    http: str = ""
    udp: bool = False
    own: bool = False


def probe(request: NodeRequest) -> Iterator[ConnectAttempt]:
    """Connect once by each next hop, ask once, and yield the outcome.

    Args:
        request: `ebpfnet-node probe ADDRESS PORT [via ADDRESS,…] [wait SECONDS] [http PATH]
            [udp yes] [own yes] [number N]`; `number` only makes attempts different, `own` connects
            as any process of this node does.

    Returns:
        One fact for each next hop, in their order, whatever the outcome; one fact without a next
        hop.

    Raises:
        KernelError: malformed words.
    """
    options = _options(request.argv[2:])
    if options.own:
        yield _from_own_stack(options)
        return
    begun = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            yield from _connect_all(stack, options)
    except KernelError as error:
        # The setup failed: the peer is unknown.
        unresolved = error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
        attempt = ConnectAttempt(
            "unreachable" if unresolved else "error", error.message, time.monotonic() - begun
        )
        yield from [attempt] * max(1, len(options.via))


def _connect_all(stack: contextlib.ExitStack, options: _ProbeOptions) -> list[ConnectAttempt]:
    from kubectl_ebpfnet.node.netkat import many
    from kubectl_ebpfnet.node.netkat.setup import set_up_for_peer

    hops = [_next_hop(via) for via in options.via]
    arguments = ["-w", str(options.wait), *(["--via", hops[0]] if hops else [])]
    arguments += ["-u"] if options.udp else []
    request = netkat.parse([*arguments, options.address, str(options.port)])
    assert request is not None, "no help was asked for"
    count = max(1, len(hops))
    setup = set_up_for_peer(stack, request, options.address, connections=count)
    many.add_next_hops(setup, hops)
    sockets = many.marked_sockets(setup, count, udp=options.udp)
    for sock in sockets:
        stack.callback(sock.close)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda pair: _attempt(setup, options, *pair), enumerate(sockets)))


def _attempt(
    setup: NetkatSetup, options: _ProbeOptions, number: int, peer: socket.socket
) -> ConnectAttempt:
    """Make one connection; its socket stays open, so that its last packets take the same path."""
    begun = time.monotonic()
    attempt = ConnectAttempt(
        "connected",
        source=ipaddress.ip_address(setup.route.sources[0]),
        source_port=setup.first_port + number,
        device=setup.route.device.name,
    )

    def finished(outcome: str, detail: str = "", answer: bytes = b"") -> ConnectAttempt:
        seconds = round(time.monotonic() - begun, 6)
        text = answer.decode("utf-8", "replace")
        return replace(attempt, outcome=outcome, detail=detail, seconds=seconds, answer=text)

    try:
        icmp_errors.collect_errors(peer)
        peer.settimeout(options.wait)
        peer.connect((setup.peer_address, options.port))
        if options.udp:
            return finished("connected", answer=_answer_by_udp(peer, options.wait))
        connected = finished("connected")
        icmp_errors.collect_errors(peer, False)  # an established connection survives ICMP errors
        if not options.http:
            return connected
        answer, problem = _http_get(peer, options)
        return replace(connected, detail=problem, answer=answer.decode("utf-8", "replace"))
    except OSError as error:
        return finished(*_failed(setup, options, number, peer, error))


def _from_own_stack(options: _ProbeOptions) -> ConnectAttempt:
    """Connect as a process of this node: by its socket load-balancing, netfilter and routes."""
    begun = time.monotonic()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    attempt, answer = ConnectAttempt("connected"), b""
    with socket.socket(family, socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM) as peer:
        peer.settimeout(options.wait)
        try:
            peer.connect((options.address, options.port))
            source, port = peer.getsockname()[:2]
            attempt = replace(attempt, source=ipaddress.ip_address(source), source_port=port)
            if options.udp:
                answer = _answer_by_udp(peer, options.wait)
            seconds = round(time.monotonic() - begun, 6)
        except OSError as error:
            outcome, detail = _own_failure(options, error)
            seconds = round(time.monotonic() - begun, 6)
            return replace(attempt, outcome=outcome, detail=detail, seconds=seconds)
        if options.http and not options.udp:
            answer, problem = _http_get(peer, options)
            attempt = replace(attempt, detail=problem)
    return replace(attempt, seconds=seconds, answer=answer.decode("utf-8", "replace"))


def _own_failure(options: _ProbeOptions, error: OSError) -> tuple[str, str]:
    """Return outcome and detail of an attempt by the node's own stack."""
    if isinstance(error, TimeoutError) or error.errno in (errno.ETIMEDOUT, errno.EAGAIN):
        return "timeout", f"silence for {options.wait:g} s"
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused", "connection refused"
    unreachable = error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    return "unreachable" if unreachable else "error", error.strerror or str(error)


def _failed(
    setup: NetkatSetup, options: _ProbeOptions, number: int, peer: socket.socket, error: OSError
) -> tuple[str, str]:
    """Return outcome and detail of an attempt without an answer."""
    hop = options.via[number] if options.via else ""
    code = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or 0
    if code in (errno.ETIMEDOUT, errno.EHOSTUNREACH) and (unresolved := _unresolved(setup, hop)):
        return "unreachable", f"{unresolved} does not answer ARP or NDP"
    arguments = icmp_errors.first_error(peer)
    if arguments is not None:
        return "refused" if arguments.errno == errno.ECONNREFUSED else "icmp", arguments.text
    if code in (errno.ETIMEDOUT, errno.EAGAIN):
        return "timeout", f"silence for {options.wait:g} s"
    if code in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused", "TCP RST"
    return "error", error.strerror or str(error)


def _answer_by_udp(peer: socket.socket, wait: float) -> bytes:
    """Return a server's answer; ask again every second, since a datagram may be lost.

    Raises:
        OSError: TimeoutError after `wait` seconds, else an ICMP error.
    """
    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        peer.send(_UDP_WORD)
        peer.settimeout(min(left, _AGAIN_SECONDS))
        with contextlib.suppress(TimeoutError):
            return peer.recv(_LONGEST_ANSWER)
    raise TimeoutError


def _next_hop(address: str) -> str:
    """Return the next hop's MAC if this node's neighbour table has it, else its address. With the
    MAC the frames are like a load-balancer's, and independent of ARP."""
    from kubectl_ebpfnet.node.netlink.tables import neighbours

    for entry in neighbours(NodeRequest(0, ())):
        if str(entry.address) == address and entry.mac and "FAILED" not in entry.states:
            return entry.mac
    return address


def _unresolved(setup: NetkatSetup, hop: str) -> str:
    """Return the next hop if it was not resolved, else "". The kernel's error is the same as for an
    ICMP message.

    Args:
        setup: the path.
        hop: address of the next hop, "" for the route's own, the only one then.
    """
    from kubectl_ebpfnet.node.netlink.tables import neighbours

    with setup.netns.inside():
        for entry in neighbours(NodeRequest(0, ())):
            unresolved = not entry.mac and {"FAILED", "INCOMPLETE"} & set(entry.states)
            if unresolved and hop in ("", str(entry.address)):
                return str(entry.address)
    return ""


def _http_get(peer: socket.socket, options: _ProbeOptions) -> tuple[bytes, str]:
    """Return the answer to an HTTP request, and the problem with it; the connection succeeded."""
    host = f"[{options.address}]" if ":" in options.address else options.address
    lines = [f"GET {options.http} HTTP/1.1", f"Host: {host}", "User-Agent: kubectl-ebpfnet"]
    lines += ["Connection: close", "", ""]
    answer = b""
    try:
        peer.sendall("\r\n".join(lines).encode())
        while len(answer) < _LONGEST_ANSWER:
            piece = peer.recv(_LONGEST_ANSWER - len(answer))
            if not piece:
                break
            answer += piece
    except OSError as error:
        return answer, f"connected, and then: {error.strerror or error}"
    return answer, ""


def _options(words: tuple[str, ...]) -> _ProbeOptions:
    if len(words) < 2 or len(words) % 2:
        raise KernelError(f"a probe is asked for as: {_WORDS}")
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    if pairs.keys() - {"via", "wait", "http", "udp", "own", "number"}:
        raise KernelError(f"a probe is asked for as: {_WORDS}")
    try:
        address = str(ipaddress.ip_address(words[0]))
        hops = pairs["via"].split(",") if "via" in pairs else []
        via = tuple(str(ipaddress.ip_address(word)) for word in hops)
        port, wait = int(words[1]), float(pairs.get("wait", "5"))
    except ValueError as error:
        raise KernelError(f"{error}; a probe is asked for as: {_WORDS}") from None
    path = pairs.get("http", "")
    if path and (not path.startswith("/") or not path.isascii() or not path.isprintable()):
        raise KernelError(f"an HTTP path begins with / and has no control characters: {path!r}")
    if len(via) > _MOST_HOPS:
        raise KernelError(f"{len(via)} next hops; at most {_MOST_HOPS} at once")
    if not 0 < port < 65536 or not 0 < wait <= 60 or " " in path:
        raise KernelError(f"a probe is asked for as: {_WORDS}; port 1 to 65535, at most 60 s")
    return _ProbeOptions(address, port, via, wait, path, "udp" in pairs, "own" in pairs)
