"""Netfilter's rules as `iptables-save` and `ip6tables-save` print them: tables, chains, rules.

Sources: iptables-save(8), iptables-extensions(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Network


@dataclass(frozen=True, slots=True)
class MatchOption:
    """One option of a match.

    Attributes:
        name: as it is printed, `--dport`.
        inverted: a `!` stands before it.
        values: the words after it.
    """

    name: str
    inverted: bool = False
    values: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The only value. Raises ValueError when there are more or fewer."""
        (value,) = self.values
        return value


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """One `-m` of a rule; a rule may have several of one module.

    Attributes:
        module: `tcp`, `conntrack`, `mark`, …
        options: in their order.
    """

    module: str
    options: tuple[MatchOption, ...] = ()


@dataclass(frozen=True, slots=True)
class NetfilterRule:
    """One `-A` line of iptables-save(8).

    Attributes:
        table: `raw`, `mangle`, `nat`, `filter`, `security`.
        chain: chain name.
        number: 1-based position in its chain.
        text: the line without its counters.
        jump: target after `-j` (or `-g`), "" when there is none.
        goto: it is `-g`: the target's end is the end of this chain, too.
        target_options: the words after the target.
        source, destination: prefixes, None for any; `not_source`, `not_destination` invert them.
        protocol: protocol name in lower case, "" for any; `not_protocol` inverts it.
        in_device, out_device: device name, `+` at its end matches any rest; "" for any.
        fragment: of `-f` (True) and `! -f` (False), None when not looked at.
        matches: every `-m`, also those that nobody here understands; comments are left out.
        comment: text of `-m comment`, "" when none.
        problem: why the line could not be read, "" when it could: its matches and its target are
            not known then.
        packets, bytes: counters, None when iptables-save ran without -c.
    """

    table: str
    chain: str
    number: int
    text: str
    jump: str = ""
    goto: bool = False
    target_options: tuple[str, ...] = ()
    source: Network | None = None
    not_source: bool = False
    destination: Network | None = None
    not_destination: bool = False
    protocol: str = ""
    not_protocol: bool = False
    in_device: str = ""
    not_in_device: bool = False
    out_device: str = ""
    not_out_device: bool = False
    fragment: bool | None = None
    matches: tuple[RuleMatch, ...] = ()
    comment: str = ""
    problem: str = ""
    packets: int | None = None
    bytes: int | None = None
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def title(self) -> str:
        """`FORWARD rule 1 “comment”`; what it says where it has no comment."""
        said = self.text.removeprefix(f"-A {self.chain} ")
        named = f"“{self.comment}”" if self.comment else said
        return f"{self.chain} rule {self.number} {named}"

    @property
    def names_port(self) -> bool:
        """Whether it is for one destination port, or some."""
        return any(o.name in ("--dport", "--dports") for m in self.matches for o in m.options)

    def option(self, *names: str) -> str:
        """Return the word after the first of these options of the target, "" without one."""
        for name, value in zip(self.target_options, self.target_options[1:], strict=False):
            if name in names:
                return value
        return ""

    @property
    def to_address(self) -> str:
        """Value of `--to-source`, `--to-destination` or `--to-ports`, "" when none."""
        return self.option("--to-source", "--to-destination", "--to-ports")


@dataclass(frozen=True, slots=True)
class NetfilterChain:
    """A chain's declaration: its table, name, and policy ("-" for chains of users)."""

    table: str
    name: str
    policy: str
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class UnreadLine:
    """A line of a table, no rule, that could not be read.

    Attributes:
        table: its table.
        problem: what is wrong with it, one sentence.
    """

    table: str
    problem: str
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All of one `iptables-save`: chains and rules in their order.

    Attributes:
        chains, rules: of every table.
        unread: lines that could not be read, and tables that iptables could not print.
        cut_in: the table in which the output ends before its COMMIT, "" when it is whole.
        backend: `nf_tables`, `legacy`, or "" where no header says it.
        legacy_too: iptables warns that the other back end, ip_tables, has tables as well.
    """

    chains: tuple[NetfilterChain, ...]
    rules: tuple[NetfilterRule, ...]
    unread: tuple[UnreadLine, ...] = ()
    cut_in: str = ""
    backend: str = ""
    legacy_too: bool = False
    _rules: Mapping[tuple[str, str], tuple[NetfilterRule, ...]] = field(
        init=False, repr=False, compare=False
    )
    _policies: Mapping[tuple[str, str], str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[tuple[str, str], list[NetfilterRule]] = {}
        policies: dict[tuple[str, str], str] = {}
        for chain in self.chains:
            index.setdefault((chain.table, chain.name), [])
            policies.setdefault((chain.table, chain.name), chain.policy)
        object.__setattr__(self, "_policies", policies)
        for rule in self.rules:
            index.setdefault((rule.table, rule.chain), []).append(rule)
        object.__setattr__(self, "_rules", {key: tuple(rules) for key, rules in index.items()})

    def chain(self, table: str, name: str) -> tuple[NetfilterRule, ...]:
        """Return the rules of one chain, in order; () when there is no such chain."""
        return self._rules.get((table, name), ())

    def has_chain(self, table: str, name: str) -> bool:
        """Tell whether a chain is declared or has rules."""
        return (table, name) in self._rules

    def policy(self, table: str, name: str) -> str:
        """Return the chain's policy, "" when there is no such chain."""
        return self._policies.get((table, name), "")

    def problem(self, table: str) -> str:
        """Return why a table is not known whole, "" when it is.

        A table that the output does not name is empty, unless the output was cut short.
        """
        for line in self.unread:
            if line.table == table:
                return line.problem
        if not self.cut_in:
            return ""
        whole = table != self.cut_in and any(chain.table == table for chain in self.chains)
        return "" if whole else f"the output was cut short in table {self.cut_in}"
