"""`iptables-save` and `ip6tables-save`, with and without counters (-c).

A rule keeps the matches that can be compared with a packet. Other matches (a rate limit, a negated
port, a second match of one kind) are named in `other_matches`, so that the rule is not taken for
one that matches everything: no option is dropped silently.

Sources: iptables' iptables/iptables.c (print_rule4), libxtables/xtables.c (xtables_save_string),
extensions/libxt_*.c and libipt_*.c (their _save functions), iptables-save(8),
iptables-extensions(8). Verified with iptables 1.8.9 (nf_tables).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import NetfilterChain, NetfilterRule, Ruleset
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.parse._text import address, integer, lines, network, port, quoted

_SOURCE = "iptables-save"
_MARK_BITS = 0xFFFFFFFF
# Matches that only require their protocol, as `-p` does already.
_PROTOCOLS = frozenset(("tcp", "udp", "udplite", "sctp", "dccp"))
# Options of a target that name the address or ports to translate to.
_TRANSLATION_OPTIONS = ("--to-source", "--to-destination", "--to-ports")
_RULE_OPTIONS = {"-s": "source", "-d": "destination", "-f": "fragment"}
_TRANSLATING_TARGETS = ("SNAT", "DNAT", "MASQUERADE", "REDIRECT")


def ruleset(data: bytes) -> Ruleset:
    """Return all tables of the output, in their order; the output may have several dumps."""
    chains: list[NetfilterChain] = []
    rules: list[NetfilterRule] = []
    lengths: dict[tuple[str, str], int] = {}
    table = ""
    for number, text in lines(data, _SOURCE):
        text = text.strip()
        if not text or text.startswith("#") or text == "COMMIT":
            continue
        if text.startswith("*"):
            table = text[1:]
            continue
        if not table:
            raise ParseError(_SOURCE, number, f"not in a table: {quoted(text)}")
        if text.startswith(":"):
            chains.append(_chain(table, text, number))
            continue
        reader = _RuleReader(table, text, number)
        key = (table, reader.chain)
        lengths[key] = lengths.get(key, 0) + 1
        rules.append(reader.rule(lengths[key]))
    return Ruleset(tuple(chains), tuple(rules))


def _chain(table: str, text: str, number: int) -> NetfilterChain:
    words = text[1:].split()  # `:INPUT ACCEPT [0:0]`
    if len(words) < 2:
        raise ParseError(_SOURCE, number, f"not a chain: {quoted(text)}")
    return NetfilterChain(table, words[0], words[1], Span(number))


@dataclass(slots=True)
class _Option:
    """One option: the match it belongs to, and its values."""

    match: str  # the last `-m` before it, "" before the first
    name: str
    inverted: bool
    values: list[str]

    @property
    def value(self) -> str:
        """The only value. Raises ValueError when there are more or fewer."""
        (value,) = self.values
        return value


@dataclass(slots=True)
class _RuleReader:
    """Reads one rule."""

    table: str
    line: str
    number: int
    chain: str = ""
    words: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        text = self.line
        if text.startswith("["):  # `[packets:bytes] `, with -c
            counters, _, text = text[1:].partition("] ")
            packets, _, octets = counters.partition(":")
            self.fields["packets"] = integer(packets, _SOURCE, self.number)
            self.fields["bytes"] = integer(octets, _SOURCE, self.number)
        self.fields["text"] = text
        self.words = _split(text, self.number)
        if len(self.words) < 2 or self.words[0] != "-A":
            raise ParseError(_SOURCE, self.number, f"not a rule: {quoted(self.line)}")
        self.chain = self.words[1]

    def rule(self, position: int) -> NetfilterRule:
        """Return the rule; `position` is its 1-based position in its chain."""
        for option in _options(self.words[2:]):
            if option.name in ("-j", "-g"):
                self._target(option)
            elif option.name == "--comment" and option.values:
                self.fields.setdefault("comment", option.values[0])
            elif option.name != "-m":
                self._option(option)
            elif option.match not in _KNOWN_MATCHES:
                self._not_evaluated(option.match)
        return NetfilterRule(
            table=self.table,
            chain=self.chain,
            number=position,
            other_matches=tuple(self.other),
            span=Span(self.number),
            **self.fields,
        )

    def _option(self, option: _Option) -> None:
        if option.match in _KNOWN_MATCHES or not option.match:
            read = _OPTIONS.get((_family(option.match), option.name))
            if read is not None:
                try:
                    found = read(option, self.number)
                except ValueError:
                    problem = f"{quoted(option.name)} with {len(option.values)} values"
                    raise ParseError(_SOURCE, self.number, problem) from None
                if found is not None and not (found.keys() & self.fields.keys()):
                    self.fields.update(found)
                    return
        self._not_evaluated(option.match or _RULE_OPTIONS.get(option.name, option.name))

    def _target(self, option: _Option) -> None:
        if not option.values:
            raise ParseError(_SOURCE, self.number, f"nothing after {option.name}")
        self.fields["jump"] = option.values[0]
        if option.values[0] not in _TRANSLATING_TARGETS:
            return
        for name, value in zip(option.values[1:], option.values[2:], strict=False):
            if name in _TRANSLATION_OPTIONS:
                self.fields["to_address"] = value

    def _not_evaluated(self, name: str) -> None:
        if name not in self.other:
            self.other.append(name)


def _split(text: str, number: int) -> list[str]:
    """Return the words of a rule; those in double quotes may hold spaces and escaped characters."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
        elif text[at] == '"':
            word, at = _quoted_word(text, at + 1, number)
            words.append(word)
        else:
            end = text.find(" ", at)
            end = len(text) if end < 0 else end
            words.append(text[at:end])
            at = end
    return words


def _quoted_word(text: str, at: int, number: int) -> tuple[str, int]:
    characters: list[str] = []
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"  # a backslash escapes the next character
        characters.append(text[at : at + 1])
        at += 1
    if at >= len(text):
        raise ParseError(_SOURCE, number, "a quote that does not end")
    return "".join(characters), at + 1


def _options(words: list[str]) -> list[_Option]:
    """Return the options in their order; everything behind the target is the target's value."""
    options: list[_Option] = []
    match = ""
    inverted = False
    for at, word in enumerate(words):
        if word == "!":
            inverted = True
        elif word in ("-j", "-g"):
            options.append(_Option(match, word, inverted, words[at + 1 :]))
            break
        elif word == "-m":
            match = words[at + 1] if at + 1 < len(words) else ""
            options.append(_Option(match, word, False, []))
        elif word.startswith("-") and not (options and _takes_next(options[-1])):
            # An option of the rule itself, not of a match, has one dash.
            owner = match if word.startswith("--") else ""
            options.append(_Option(owner, word, inverted, []))
            inverted = False
        elif options:
            options[-1].values.append(word)
    return [option for option in options if option.name != "-m" or option.match]


def _takes_next(option: _Option) -> bool:
    """Tell whether the next word is this option's value even when it begins with a dash."""
    return option.name in ("--comment", "--log-prefix") and not option.values


def _family(match: str) -> str:
    return "tcp" if match in _PROTOCOLS else match


def _prefix(name: str) -> Callable[[_Option, int], dict[str, Any] | None]:
    def read(option: _Option, number: int) -> dict[str, Any] | None:
        host, slash, mask = option.value.partition("/")
        if slash and not mask.isdigit():
            # A mask with holes (255.0.255.0) is no prefix, and `ipaddress` takes 0.0.0.255 for
            # its inverse.
            ones = address(mask, _SOURCE, number)
            holes = int(ones) ^ ((1 << ones.max_prefixlen) - 1)
            if holes & (holes + 1):
                return None
            mask = str(ones.max_prefixlen - holes.bit_length())
        prefix = network(f"{host}{slash}{mask}", _SOURCE, number)
        return {name: prefix, f"not_{name}": option.inverted}

    return read


def _word(name: str) -> Callable[[_Option, int], dict[str, Any] | None]:
    def read(option: _Option, _number: int) -> dict[str, Any] | None:
        return {name: option.value, f"not_{name}": option.inverted}

    return read


def _ports(name: str) -> Callable[[_Option, int], dict[str, Any] | None]:
    def read(option: _Option, number: int) -> dict[str, Any] | None:
        if option.inverted:
            return None
        ranges = []
        for part in option.value.split(","):
            low, colon, high = part.partition(":")
            first = port(low or "0", _SOURCE, number)
            last = port(high or "65535", _SOURCE, number) if colon else first
            ranges.append((first, last))
        return {name: tuple(ranges)}

    return read


def _protocol(option: _Option, _number: int) -> dict[str, Any] | None:
    name = option.value.lower()
    if name.isascii() and name.isdigit() and len(name) <= 3:
        name = protocol_name(int(name)).lower()
    if name == "all":
        name = ""
    return {"protocol": "icmpv6" if name == "ipv6-icmp" else name, "not_protocol": option.inverted}


def _mark(option: _Option, number: int) -> dict[str, Any] | None:
    value, slash, mask = option.value.partition("/")
    return {
        "mark": integer(value, _SOURCE, number, most=_MARK_BITS),
        "mark_mask": integer(mask, _SOURCE, number, most=_MARK_BITS) if slash else _MARK_BITS,
        "not_mark": option.inverted,
    }


def _set(option: _Option, _number: int) -> dict[str, Any] | None:
    name, direction = option.values
    return {"set_name": name, "set_direction": direction, "not_set": option.inverted}


def _states(option: _Option, _number: int) -> dict[str, Any] | None:
    return {"states": tuple(option.value.split(",")), "not_states": option.inverted}


# (match, option) → reads its fields; None from it means that the model has no field for it.
_OPTIONS: dict[tuple[str, str], Callable[[_Option, int], dict[str, Any] | None]] = {
    ("", "-s"): _prefix("source"),
    ("", "-d"): _prefix("destination"),
    ("", "-p"): _protocol,
    ("", "-i"): _word("in_device"),
    ("", "-o"): _word("out_device"),
    ("tcp", "--dport"): _ports("destination_ports"),
    ("tcp", "--sport"): _ports("source_ports"),
    ("multiport", "--dports"): _ports("destination_ports"),
    ("multiport", "--sports"): _ports("source_ports"),
    ("mark", "--mark"): _mark,
    ("set", "--match-set"): _set,
    ("addrtype", "--dst-type"): _word("destination_type"),
    ("conntrack", "--ctstate"): _states,
    ("state", "--state"): _states,
}
_KNOWN_MATCHES = _PROTOCOLS | {"comment"} | {match for match, _ in _OPTIONS if match}
