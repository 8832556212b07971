"""nftables' own rules, as `nft -j list ruleset` prints them: tables, chains, rules, sets.

Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.nft_text import statement_text

Expression = Mapping[str, Any]
"""A statement or an expression in libnftables-json(5)'s form: an object with one member."""


@dataclass(frozen=True, slots=True)
class NftChain:
    """A chain of nftables.

    Attributes:
        family: `ip`, `ip6`, `inet`, `netdev`, `bridge` or `arp`.
        table, name: of the chain.
        hook: `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress` or `egress`; ""
            for a chain that is only jumped to.
        kind: `filter`, `nat` or `route`; "" without a hook.
        priority: of its hook: lower ones come first.
        policy: `accept` or `drop`.
        devices: of ingress and egress.
        dormant: its table is switched off.
    """

    family: str
    table: str
    name: str
    hook: str = ""
    kind: str = ""
    priority: int = 0
    policy: str = "accept"
    devices: tuple[str, ...] = ()
    dormant: bool = False
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def title(self) -> str:
        """`inet f23 pre`: as nft's commands name it."""
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class NftSet:
    """A named set or map.

    Attributes:
        name: of the set, without `@`.
        elements: JSON; of a map [key, value].
        is_map: whether elements have values.
        changes: rules add elements or delete them while packets pass.
    """

    name: str
    elements: tuple[Any, ...] = field(default=(), compare=False)
    is_map: bool = False
    changes: bool = False


@dataclass(frozen=True, slots=True)
class NftRule:
    """A rule of nftables.

    Attributes:
        family, table, chain: where it stands.
        number: 1-based position in its chain.
        handle: by which nft deletes it.
        comment: "" for none.
        statements: in their order.
        sets: of its table, by name.
        packets: of its counter, None without one.
    """

    family: str
    table: str
    chain: str
    number: int
    handle: int
    comment: str = ""
    statements: tuple[Expression, ...] = field(default=(), compare=False)
    sets: Mapping[str, NftSet] = field(default_factory=dict, compare=False, repr=False)
    packets: int | None = None
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def text(self) -> str:
        """The rule in nft's words, as near as JSON tells them, without counters."""
        return " ".join(filter(None, map(statement_text, self.statements)))

    @property
    def title(self) -> str:
        """`nft inet f23 pre rule 1 “comment”`; the whole rule where it has no comment."""
        named = f"“{self.comment}”" if self.comment else self.text
        return f"nft {self.family} {self.table} {self.chain} rule {self.number} {named}".rstrip()

    @property
    def to_address(self) -> str:
        """Where it translates to is told by the end of its chain alone (`ChainEnd.to`)."""
        return ""


AnyRule = NetfilterRule | NftRule
"""A rule of iptables or of nftables itself."""


@dataclass(frozen=True, slots=True)
class NftRuleset:
    """All of one `nft -j list ruleset`.

    Attributes:
        chains, rules: of every table, in their order.
    """

    chains: tuple[NftChain, ...]
    rules: tuple[NftRule, ...]
    _rules: Mapping[tuple[str, str, str], tuple[NftRule, ...]] = field(
        init=False, repr=False, compare=False
    )
    _chains: Mapping[tuple[str, str, str], NftChain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chains = {(each.family, each.table, each.name): each for each in self.chains}
        object.__setattr__(self, "_chains", chains)
        index: dict[tuple[str, str, str], list[NftRule]] = {}
        for chain in self.chains:
            index.setdefault((chain.family, chain.table, chain.name), [])
        for rule in self.rules:
            index.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
        object.__setattr__(self, "_rules", {key: tuple(rules) for key, rules in index.items()})

    def declared(self, family: str, table: str, name: str) -> NftChain | None:
        """Return a chain's declaration, None without one."""
        return self._chains.get((family, table, name))

    def chain(self, family: str, table: str, name: str) -> tuple[NftRule, ...] | None:
        """Return the rules of a chain, in order; None when there is no such chain."""
        return self._rules.get((family, table, name))
