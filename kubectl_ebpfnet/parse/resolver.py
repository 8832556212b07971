"""/etc/resolv.conf, /etc/hosts and /etc/nsswitch.conf of a pod.

Sources: resolv.conf(5), hosts(5), nsswitch.conf(5). As for the C libraries, a line that is not
understood is skipped: these files are written by kubelets and by people.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.matching import text_lines
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.resolver import NDOTS, HostsEntry, NameServiceOrder, ResolverConfig

_MOST_SERVERS = 3  # MAXNS
_MOST_DOTS = 15  # RES_MAXNDOTS


def config(data: bytes) -> tuple[ResolverConfig, ...]:
    """Return resolv.conf as one fact, () where it says nothing; the last `search` or `domain`
    counts."""
    servers: list[Address] = []
    search: tuple[str, ...] = ()
    ndots = NDOTS
    first = last = 0
    for number, words in _words(data, "#;"):
        match words:
            case ["nameserver", server, *_]:
                servers += json_members.addresses([server])
            case ["search" | "domain", *domains]:
                search = tuple(domain.rstrip(".").lower() for domain in domains if domain != ".")
            case ["options", *options]:
                ndots = next((n for n in map(_ndots, options) if n is not None), ndots)
            case _:
                continue
        first, last = first or number, number
    if not first:
        return ()
    return (ResolverConfig(tuple(servers[:_MOST_SERVERS]), search, ndots, Span(first, last)),)


def hosts(data: bytes) -> tuple[HostsEntry, ...]:
    """Return the lines of /etc/hosts."""
    found = []
    for number, words in _words(data, "#"):
        for address in json_members.addresses(words[:1]):
            names = tuple(word.lower() for word in words[1:])
            found.append(HostsEntry(address, names, Span(number)))
    return tuple(found)


def order(data: bytes) -> tuple[NameServiceOrder, ...]:
    """Return the `hosts:` line of nsswitch.conf, () without one."""
    for number, words in _words(data, "#"):
        if words[0] == "hosts:":
            sources = tuple(word for word in words[1:] if not word.startswith("["))
            return (NameServiceOrder(sources, Span(number)),)
    return ()


def _words(data: bytes, comments: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of each line that has any, without its comment."""
    for number, line in enumerate(text_lines(data.decode("utf-8", "replace")), 1):
        for mark in comments:
            line = line.partition(mark)[0]
        if words := line.split():
            yield number, words


def _ndots(option: str) -> int | None:
    name, _, value = option.partition(":")
    if name == "ndots" and value.isascii() and value.isdecimal() and len(value) < 4:
        return min(int(value), _MOST_DOTS)
    return None
