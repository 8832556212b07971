"""What becomes of a packet in a chain of netfilter: every end that it may come to, and why they
differ."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.rule_matches import undecided
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import has_ports
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.nft import AnyRule

LOSING = frozenset({"DROP", "REJECT", "TARPIT"})


TRANSLATING = frozenset({"MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP"})


MAY_BE_ANYTHING = "?"
"""The target of an end of which nothing is known."""


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """One way in which a table may be done with a packet.

    Attributes:
        target: `ACCEPT`, `DROP`, `REJECT`, a translating target, or MAY_BE_ANYTHING.
        rule: the rule that decides, None for the chain's policy.
        way: the rules whose jumps led there, and `rule`.
        context: the packet there.
        doubt: for MAY_BE_ANYTHING: what is not known, one sentence.
        to: where a rule of nftables translates to, as iptables writes it; "" where not known.
    """

    target: str
    rule: AnyRule | None
    way: tuple[AnyRule, ...]
    context: Context
    doubt: str = ""
    to: str = ""

    @property
    def of_iptables(self) -> NetfilterRule | None:
        """The rule, where it is one of iptables."""
        return self.rule if isinstance(self.rule, NetfilterRule) else None

    @property
    def to_address(self) -> str:
        """Where it translates to, `10.0.0.9:8080`; "" where that is not known."""
        return self.to or (self.rule.to_address if self.rule is not None else "")


@dataclass(frozen=True, slots=True)
class ChainOutcome:
    """What a built-in chain does with a packet: every end that is possible.

    Attributes:
        ends: in the order of their rules, at least one.
        chain: its name.
    """

    ends: tuple[ChainEnd, ...]
    chain: str

    @property
    def target(self) -> str:
        """The target of all ends, MAY_BE_ANYTHING where they differ."""
        targets = {end.target for end in self.ends}
        return targets.pop() if len(targets) == 1 else MAY_BE_ANYTHING

    @property
    def end(self) -> ChainEnd:
        """The end of a packet for which no undecided rule matches, or the last one."""
        plain = (end for end in self.ends if not end.context.assumed and not end.doubt)
        return next(plain, self.ends[-1])

    @property
    def losses(self) -> tuple[ChainEnd, ...]:
        """The ends that lose the packet."""
        return tuple(end for end in self.ends if end.target in LOSING)

    @property
    def is_lost(self) -> bool | None:
        """Whether the packet is dropped or rejected; None when undecided."""
        if len(self.losses) == len(self.ends):
            return True
        return None if self.losses or any(end.doubt for end in self.ends) else False

    @property
    def passed(self) -> Context | None:
        """The packet after the chain, joined over all ends that do not lose it; None without."""
        found = [end.context for end in self.ends if end.target not in LOSING]
        return replace(reduce(joined, found), assumed=(), tracked=True) if found else None

    @property
    def open_rules(self) -> tuple[AnyRule, ...]:
        """The undecided rules that the possible ends differ by."""
        rules = [rule for end in self.ends for rule in end.context.assumed]
        rules += [end.rule for end in self.ends if end.doubt and end.rule is not None]
        return tuple(dict.fromkeys(rules))

    @property
    def doubt(self) -> str:
        """Why the ends differ, one sentence; "" where they do not."""
        for end in self.ends:
            if end.doubt:
                return end.doubt
        for rule in self.open_rules:
            return _why_open(rule, self.end.context)
        return ""


WANTS_PORT = "looks at the port: give one"
"""What a reason says that a port would settle."""


_OF_PORTS = frozenset({
    "-m tcp", "-m udp", "-m sctp", "-m dccp", "-m multiport", "tcp dport", "udp dport",
    "sctp dport", "th dport",
})  # fmt: skip
"""Matches that cannot be decided without a port, as `undecided` names them."""


_OF_MARKS = frozenset({"-m mark", "-m connmark", "meta mark", "ct mark"})
"""Matches that cannot be decided without the packet's mark."""


def _why_open(rule: AnyRule, context: Context) -> str:
    """Say everything that keeps a rule undecided."""
    parts = undecided(rule, context)
    flow = context.flow
    no_port = flow.destination_port is None and has_ports(flow.protocol)
    ports = _OF_PORTS.intersection(parts) if no_port else frozenset()
    others = [part for part in parts if part not in ports | _OF_MARKS]
    reasons = [f"{rule.title} {WANTS_PORT}, as in 1.1.1.1:80"] if ports else []
    if others:
        reasons.append(f"{', '.join(others)} of {rule.title} cannot be evaluated")
    if not reasons or _OF_MARKS.intersection(parts):
        setter = f"; {context.marked_by[-1].title} may have set it" if context.marked_by else ""
        reasons.append(f"the packet's mark is not known, at which {rule.title} looks{setter}")
    return "; ".join(reasons)


def joined_or(one: Context | None, other: Context | None) -> Context | None:
    """Return what is known of a packet that is either of two, where both may be."""
    if one is None or other is None:
        return one or other
    return joined(one, other)


def joined(one: Context, other: Context) -> Context:
    """Return what is known of a packet that is either of two."""
    same = (one.mark, one.connmark, one.state) == (other.mark, other.connmark, other.state)
    few, many = sorted((one.assumed, other.assumed), key=len)
    if same and set(few) <= set(many):
        # It comes here whether the undecided rules match or not.
        return replace(one, assumed=few)
    return replace(
        one,
        mark=one.mark.joined(other.mark),
        connmark=one.connmark.joined(other.connmark),
        state=one.state if one.state == other.state else "",
        marked_by=tuple(dict.fromkeys((*one.marked_by, *other.marked_by))),
        assumed=tuple(dict.fromkeys((*one.assumed, *other.assumed))),
    )
