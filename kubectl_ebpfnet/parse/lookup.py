"""What a look-up of a name came to: `getent ahosts` (glibc, musl), `nslookup` (BusyBox, BIND), and
the look-up of this machine.

Sources: getent(1); BusyBox networking/nslookup.c and nslookup_old.c; BIND bin/dig/nslookup.c.
BusyBox exits with 1 where any of its queries failed, and with 0 where none has an address, so the
words count.
"""

from __future__ import annotations

import re

from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.resolver import LookupOutcome

_ADDRESS = re.compile(r"Address(?: \d+)?:\s+(\S+)")
_SILENT = re.compile(r"timed out|no servers could be reached|Try again|Temporary failure")
_FAILED = re.compile(r"\b(SERVFAIL|REFUSED|FORMERR|NOTIMP)\b")
_NO_NAME = re.compile(r"\bNXDOMAIN\b")
_NO_ADDRESS = re.compile(r"Can't find .*: No answer")
_UNRESOLVED = re.compile(r"can't resolve")


def addresses(data: bytes) -> tuple[Address, ...]:
    """Return the addresses, each once and in their order; skip lines that begin with none, or with
    an address of one link (`fe80::1%eth0`)."""
    lines = data.decode("utf-8", "replace").split("\n")
    return json_members.addresses(line.split(" ", 1)[0].strip() for line in lines)


def nslookup(data: bytes) -> tuple[Address, ...]:
    """Return the addresses below a `Name:`; those above it are the nameserver's."""
    found: list[str] = []
    named = False
    for line in data.decode("utf-8", "replace").split("\n"):
        named = named or line.startswith("Name:")
        match = _ADDRESS.match(line)
        if named and match:
            found.append(match[1])
    return json_members.addresses(found)


def outcome(output: bytes) -> tuple[LookupOutcome, str]:
    """Return what nslookup's words say, where they have no address, and the nameserver's error.

    Args:
        output: its stdout and stderr.
    """
    text = output.decode("utf-8", "replace")
    failed = _FAILED.search(text)
    if failed:
        return LookupOutcome.FAILED, failed[1]
    for pattern, kind in (
        (_SILENT, LookupOutcome.SILENT),
        (_NO_NAME, LookupOutcome.NO_SUCH_NAME),
        (_NO_ADDRESS, LookupOutcome.NO_ADDRESS),
        (_UNRESOLVED, LookupOutcome.NOTHING),
    ):
        if pattern.search(text):
            return kind, ""
    return (LookupOutcome.NO_ADDRESS if "Server:" in text else LookupOutcome.NOTHING), ""
