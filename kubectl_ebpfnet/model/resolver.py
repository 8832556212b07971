"""How a pod turns a name into addresses: its resolver's files, and what a look-up came to.

Sources: resolv.conf(5), hosts(5), nsswitch.conf(5); musl's src/network/resolvconf.c.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address

NDOTS = 1
"""`ndots` where resolv.conf has none; kubelet writes 5 for dnsPolicy ClusterFirst."""


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """A resolv.conf.

    Attributes:
        nameservers: in the order in which they are asked; the C libraries take three.
        search: domains that complete a name, in their order.
        ndots: names with fewer dots are completed before they are tried as they are.
    """

    nameservers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = NDOTS
    span: Span = field(default=NOWHERE, compare=False)

    def candidates(self, name: str) -> tuple[str, ...]:
        """Return the names that are asked for, in their order, without a dot at the end."""
        if name.endswith("."):
            return (name.rstrip("."),)
        completed = tuple(f"{name}.{domain}" for domain in self.search)
        if name.count(".") >= self.ndots:
            return (name, *completed)
        return (*completed, name)


@dataclass(frozen=True, slots=True)
class HostsEntry:
    """A line of /etc/hosts: an address, and its names in lower case."""

    address: Address
    names: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class NameServiceOrder:
    """The `hosts:` line of nsswitch.conf: `files`, `dns`, …, without its actions."""

    sources: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False)


class LookupOutcome(StrEnum):
    """What a look-up of a name came to."""

    FOUND = "found"
    NO_SUCH_NAME = "no such name"
    """NXDOMAIN."""
    NO_ADDRESS = "no address"
    """The name exists, and has no address (of this family)."""
    SILENT = "silent"
    """No nameserver answered in time."""
    FAILED = "failed"
    """A nameserver answered with an error: SERVFAIL, REFUSED."""
    NOTHING = "nothing"
    """No address was found; the program does not say whether anybody answered."""
    NOT_ASKED = "not asked"
    """Nothing could look it up."""
