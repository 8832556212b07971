"""A cluster of IPv6 that is *made*, not recorded: a recorded one of IPv4, each of whose addresses
is written as an IPv6 address of the same bits (`10.44.0.5` → `fd00::a2c:5`) in every record.

Prefixes are 96 bits longer, what a command prints for one IP version stands in the records of the
other's, and brackets stand around an address before its port. Nothing else is changed: what a real
cluster of IPv6 has beside that (link-local addresses, neighbour discovery) it lacks.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from kubectl_ebpfnet.model.evidence import InMemory, Record

_BASE = int(IPv6Address("fd00::"))
_ADDRESS = r"(?<![\w.:-])(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})(?![\w.])"
_WORDS = re.compile(rf"{_ADDRESS}(?:/(\d+))?(:\d+)?")
_OTHER = {
    "ip route": "ip -6 route",
    "ip -j rule": "ip -j -6 rule",
    "iptables-save -c": "ip6tables-save -c",
}
_COMMANDS = {**_OTHER, **{new: old for old, new in _OTHER.items()}}


def text(ipv4: str) -> str:
    """Return an address of the recorded cluster as the made one has it."""
    number = int(IPv4Address(ipv4))
    return (
        "::" if not number else "::1" if ipv4 == "127.0.0.1" else str(IPv6Address(_BASE + number))
    )


def made(record: Record) -> Record:
    """Return a record of the made cluster."""
    command = record.command
    argv = tuple(_COMMANDS.get(command, command).split()) if command in _COMMANDS else record.argv
    return replace(record, argv=argv, stdout=InMemory(_said(record).encode()))


def _said(record: Record) -> str:
    said = record.stdout.read().decode(errors="replace")
    if record.command.startswith("ip -j"):
        return json.dumps(_members(json.loads(said))) if said.strip() else said
    if record.command == "ip addr":
        said = re.sub(r"\binet (?=\d)", "inet6 ", said)
    if record.command.startswith("cat /proc/net/nf_conntrack"):
        said = said.replace("ipv4     2 ", "ipv6     10 ")
    return _WORDS.sub(_word, said)


def _members(value: Any) -> Any:
    """Replace the addresses of iproute2's JSON, whose prefix lengths are members of their own."""
    if isinstance(value, list):
        return [_members(each) for each in value]
    if isinstance(value, dict):
        four = value.get("family") == "inet"
        members = {key: _members(each) for key, each in value.items()}
        if four:
            members |= {"family": "inet6", "prefixlen": 96 + value["prefixlen"]}
        return members
    return _WORDS.sub(_word, value) if isinstance(value, str) else value


def _word(found: re.Match[str]) -> str:
    ipv4, length, port = found.groups()
    try:
        address = text(ipv4)
    except ValueError:
        return found[0]
    if length is not None:
        return f"{address}/{96 + int(length) if int(length) else 0}{port or ''}"
    return f"[{address}]{port}" if port else address


def addresses_in(sentence: str) -> str:
    """Return what is said of the recorded cluster as it is said of the made one."""
    return _WORDS.sub(_word, sentence)
