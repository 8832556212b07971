"""A row of the table of facts (catalogue.py): who can be asked, who needs it, in which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Flag, auto
from typing import Generic, TypeVar

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import PlaceKind
from kubectl_ebpfnet.model.protocol.questions import HOST_PROGRAMS, node_argv

T = TypeVar("T")


class Need(Flag):
    """Who needs a fact: a command, or some packets of a live `path`."""

    PATH = auto()
    """`path`, for every packet."""
    IPV4 = auto()
    """`path`, for an IPv4 packet."""
    IPV6 = auto()
    """`path`, for an IPv6 packet."""
    SENDER = auto()
    """`path`, of the node where the packet starts, or is met first in the cluster."""
    LEAVES = auto()
    """`path`, for a destination that may be outside of the cluster."""
    STAYS = auto()
    """`path`, for a destination in the cluster."""
    NODES = auto()
    """`path`, where the CiliumNode objects could not be read."""
    NAMES = auto()
    """`path`, for a DNS name."""
    ENDS_TCP = auto()
    """`path`, of a pod or a node where a TCP packet may end."""
    ENDS_UDP = auto()
    """`path`, of a pod or a node where a UDP packet may end."""
    ENDS_SCTP = auto()
    """`path`, of a pod or a node where an SCTP packet may end."""
    PROGRAMS = auto()
    FLOWS = auto()
    LB = auto()
    """`probe-lb`, after the attempts: what decides about a Service."""
    DOCTOR = auto()
    CAPTURE = auto()
    """`capture` alone; it also asks what any other command but `doctor` and `trace` needs."""
    TRACE = auto()
    """`trace`: a session, whose lines are its record."""


NOBODY = Need(0)


@dataclass(frozen=True, slots=True)
class Form:
    """A command that prints a fact.

    Attributes:
        parser: the function of kubectl_ebpfnet.parse that reads its output: `iproute.links`. Its
            name alone, since the model is below the parsers.
        argv: the command; captures are searched for exactly these words.
    """

    parser: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """One fact that a place can be asked for, of class T: a row of the table.

    Attributes:
        name: unique.
        places: the kinds of place that can answer.
        need: who needs it; nobody for a row that is only read.
        node: name of the node side's question (model/protocol/questions.py), "" for none.
        node_need: who needs it of a node pod, where that differs: a node pod answers other rows
            that tell the same, or lacks them.
        node_pod_only: nobody is asked by exec: a pod's image rarely has the program.
        asked: commands for a shell or an agent, best first.
        read: commands of captures that other people made: `collect` never runs them, since one of
            `asked` succeeds wherever they would.
        flags: any flags may follow the words of `read`: captures that other people made.
        select: a flag with an address behind it by which the command itself selects flows, "" for
            none; such a command needs no line filter.
        by_flow: its output grows with the cluster's traffic: a live run brings home only lines
            with the flow's addresses, and its parser takes one line and its number.
        by_address: its output grows with the cluster, and a row begins with an address: a live
            `path` brings home the rows of its addresses, and those of prefixes.
        by_endpoint: it is a list of endpoints: a live run brings those with these addresses home.
        maps: pins in /sys/fs/bpf/tc/globals, with * as in a shell: an agent's node where none of
            them is does not start Cilium's program for this. Its start is what it costs.
        takes: the parameters that it cannot be asked without, "" for none.
        words: parameters, such as a device: the last words of each argv, and arguments of the
            parser.
    """

    name: str
    places: tuple[PlaceKind, ...]
    need: Need = NOBODY
    node: str = ""
    node_need: Need | None = None
    node_pod_only: bool = False
    asked: tuple[Form, ...] = ()
    read: tuple[Form, ...] = ()
    flags: bool = False
    select: str = ""
    by_flow: bool = False
    by_address: bool = False
    by_endpoint: bool = False
    maps: tuple[str, ...] = ()
    takes: str = ""
    words: tuple[str, ...] = ()

    def about(self, *words: str) -> Fact[T]:
        """Return this fact with parameters."""
        return replace(self, words=words)

    @property
    def forms(self) -> tuple[tuple[str, ...], ...]:
        """The argvs for a shell or an agent, best first."""
        return tuple(form.argv + self.words for form in self.asked)

    @property
    def node_argv(self) -> tuple[str, ...]:
        """The argv that the node side answers: its own question, or a program of the node that it
        may run; () for none."""
        if self.node:
            return node_argv(self.node, *self.words)
        return next((argv for argv in self.forms if argv in HOST_PROGRAMS), ())

    @property
    def answers(self) -> tuple[tuple[str, ...], ...]:
        """Every argv whose record answers the question, best first."""
        own = (self.node_argv,) if self.node else ()
        return own + self.forms + tuple(form.argv + self.words for form in self.read)

    def is_answered_by(self, argv: Sequence[str]) -> bool:
        """Tell whether a command's output holds this fact."""
        return tuple(argv) in self.answers or self._with_flags(argv) is not None

    def _with_flags(self, argv: Sequence[str]) -> Form | None:
        """Return the form of `read` that a command is, with flags behind it."""
        forms = self.read if self.flags else ()
        return next((form for form in forms if tuple(argv[: len(form.argv)]) == form.argv), None)

    def parser(self, argv: Sequence[str]) -> str:
        """Return the name of the parser of a command. Raises KeyError for other commands."""
        flagged = self._with_flags(argv)
        if flagged is not None:
            return flagged.parser
        parsers = {form.argv + self.words: form.parser for form in (*self.asked, *self.read)}
        return parsers[tuple(argv)]
