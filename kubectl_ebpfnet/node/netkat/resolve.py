"""Resolve a host, by this host's resolver, before a private netns is entered."""

from __future__ import annotations

import ipaddress
import socket
import threading

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.netkat.request import Request


def addresses(request: Request) -> list[tuple[str, int]]:
    """Return (address, ifindex of a link-local address's device or 0), in the resolver's order.

    Raises:
        KernelError: no address, none of the requested IP version, or no answer within -w.
    """
    found = _numeric(request.host, request.version) or _resolved(request)
    if request.source:
        version = ipaddress.ip_address(request.source).version
        found = [pair for pair in found if ipaddress.ip_address(pair[0]).version == version]
    if not found:
        raise KernelError(f"{request.host} and --source {request.source} share no IP version")
    return found


def _numeric(host: str, version: int) -> list[tuple[str, int]]:
    """Return the host if it is an address without a scope, of the requested IP version."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    plain = "%" not in host and version in (0, address.version)
    return [(str(address), 0)] if plain else []


def _resolved(request: Request) -> list[tuple[str, int]]:
    family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(request.version, socket.AF_UNSPEC)
    # As bytes, or Python loads the tables of IDNA (10 ms).
    host = request.host.encode() if request.host.isascii() else request.host
    found: list[tuple[str, int]] = []
    problem: list[str] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        except OSError as error:
            problem.append(error.strerror or str(error))
            return
        for *_, name in rows:
            scope = int(name[3]) if len(name) == 4 else 0
            found.append((str(name[0]).partition("%")[0], scope))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(request.wait)
    if not found:
        why = problem[0] if problem else f"no answer in {request.wait:g} s"
        raise KernelError(f"{request.host}: {why}")
    return list(found)
