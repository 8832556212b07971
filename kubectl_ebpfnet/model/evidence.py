"""Records and the bundle that holds them: the whole input of every explanation.

A record holds the output of one command at one place, unchanged. A bundle is an ordered store of
records; a live run, a capture file and a test scenario give the same bundle.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Flow

if TYPE_CHECKING:
    from datetime import timedelta


class PlaceKind(StrEnum):
    """Where a command ran."""

    API = "api"
    """The API server; argv is `get <resource> …`, stdout is the JSON it answered."""
    AGENT = "cilium-agent"
    """Cilium's agent container of `node`: the node's own network namespace."""
    POD = "pod"
    """A container of a pod: the pod's network namespace."""
    NODE = "node"
    """A shell or a node pod on the node: the node's network namespace, without Cilium's tools."""
    CLIENT = "client"
    """The machine that runs kubectl (DNS look-ups)."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    """One place of the cluster.

    Attributes:
        kind: the kind of place.
        node: node name, for AGENT and NODE.
        namespace, pod: for POD.
    """

    kind: PlaceKind
    node: str = ""
    namespace: str = ""
    pod: str = ""

    def __str__(self) -> str:
        if self.kind is PlaceKind.POD:
            return f"pod {self.namespace}/{self.pod}"
        if self.kind is PlaceKind.AGENT:
            return f"cilium-agent on {self.node}"
        if self.kind is PlaceKind.NODE:
            return f"node {self.node}"
        return "API server" if self.kind is PlaceKind.API else "this machine"


def now() -> str:
    """Return the time as a record bears it: RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def dated(record: Record, ahead: timedelta) -> Record:
    """Return a record that bears the time of a clock which is `ahead` of the one that dated it."""
    if not ahead or not record.started:
        return record
    from datetime import datetime  # few clocks differ

    then = datetime.fromisoformat(record.started) + ahead
    return replace(record, started=then.strftime("%Y-%m-%dT%H:%M:%SZ"))


API = Place(PlaceKind.API)
CLIENT = Place(PlaceKind.CLIENT)


def agent_place(node: str) -> Place:
    """Return the place of a node's Cilium agent."""
    return Place(PlaceKind.AGENT, node=node)


def pod_place(namespace: str, name: str) -> Place:
    """Return the place of a pod."""
    return Place(PlaceKind.POD, namespace=namespace, pod=name)


def node_place(name: str) -> Place:
    """Return the place of a node."""
    return Place(PlaceKind.NODE, node=name)


NOBODY_ASKED = "--node-access none: nothing on the node was asked"
"""The error of a node's record where no node was to be asked."""
LIVE = "live"
"""`Bundle.source` of a live run; other bundles have the name of their file."""
READ_LIMIT = 256 << 20
"""Bytes of one output that may be read at once; streaming has no limit. The longest that is read
whole is a list of objects: 150,000 pods, the most that Kubernetes supports, of 1 KiB each."""


class Output(Protocol):
    """Bytes that a command printed; they may still lie in a file."""

    def read(self) -> bytes:
        """Return all bytes.

        Raises:
            ParseError: there are more than READ_LIMIT: nothing is known of this record.
            BundleError: the file is damaged.
        """
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of bounded size, in order."""
        ...


@runtime_checkable
class Counted(Protocol):
    """Output that knows how many lines its chunks have: counting them costs as much as a search."""

    def counted_chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield the chunks in order, each with the number of its newlines, -1 when not known."""
        ...


PIECE = 1 << 20
"""Bytes of one chunk of held output; big enough that a search outweighs the step."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Output that is in memory."""

    data: bytes = b""

    def read(self) -> bytes:
        """Return all bytes."""
        return self.data

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of at most PIECE bytes."""
        for start in range(0, len(self.data), PIECE):
            yield self.data[start : start + PIECE]


@dataclass(frozen=True, slots=True)
class Span:
    """Where in the stdout of a record a fact stands. A parser tells it, and nobody searches for it.

    Attributes:
        line: 1-based number of the first line, 0 where the path alone tells.
        last: number of the last line, 0 for a single line.
        path: names and 0-based indexes that lead to the fact's object in the JSON document of these
            lines, of the whole stdout for line 0 (a JSON pointer, RFC 6901); () for the lines
            themselves.
    """

    line: int = 0
    last: int = 0
    path: tuple[str | int, ...] = ()

    @property
    def lines(self) -> range:
        """Numbers of the lines."""
        return range(self.line, max(self.line, self.last) + 1) if self.line else range(0)

    def head(self, count: int = 1) -> Span:
        """Return the first lines of a block of text; an object of JSON stays whole."""
        return self if self.path else Span(self.line, min(self.last, self.line + count - 1))

    def member(self, *path: str | int) -> Span:
        """Return the place of what a path leads to from this object."""
        return Span(self.line, self.last, (*self.path, *path))

    def outer(self, steps: int) -> Span:
        """Return the place of the object some steps up the path; lines stay as they are."""
        return Span(self.line, self.last, self.path[:-steps])


NOWHERE = Span()
"""The place of a fact that was made of several, and of one that no record holds."""


class FlowSelector(Protocol):
    """A filter of flows (protocol/questions.py)."""

    def fits(self, *flows: Flow) -> bool:
        """Tell whether any of these flows fits."""
        ...


@dataclass(frozen=True, slots=True)
class LineCounts:
    """Lines of a table of connections that were counted where it was printed.

    Attributes:
        tcp4, tcp6, other4, other6: Cilium's entries of TCP and of other protocols, by IP version.
        sought: entries to the destination that was asked for: of NAT, translated ones.
    """

    tcp4: int = 0
    tcp6: int = 0
    other4: int = 0
    other6: int = 0
    sought: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """The output of one command at one place.

    Attributes:
        number: 1-based position in its bundle; evidence points at it.
        place: where the command ran.
        argv: the command.
        exit_code: None when the command did not run, or its end was not seen.
        stdout, stderr: unchanged.
        started: RFC 3339 time in UTC, "" when not known.
        error: why the command did not run, in one sentence; "" when it ran.
        denied: the RBAC permission that was missing, e.g. `create pods/exec in namespace x`.
        line_filter: when not (), stdout has only the lines with any of these strings. Captures
            call it `kept`.
        left_out: how many entries of the flows that were asked for are older than the newest, which
            alone are in stdout; of a table of addresses, how many lines do not fit.
        beside_left_out: the same of others beside them, which were asked for as well: what else a
            pod has. Both are 0 without `line_filter`.
        about: both are estimates: of a large table of translations a node pod looks up those of the
            connections alone that its conntrack shows.
        flows: filters of the flows that were asked for; () for all.
        counts: of a table of connections with `line_filter`, where its lines were counted.
    """

    number: int
    place: Place
    argv: tuple[str, ...]
    exit_code: int | None
    stdout: Output = field(default_factory=InMemory)
    stderr: bytes = b""
    started: str = ""
    error: str = ""
    denied: str = ""
    line_filter: tuple[str, ...] = ()
    left_out: int = 0
    beside_left_out: int = 0
    about: bool = False
    flows: tuple[FlowSelector, ...] = ()
    counts: LineCounts | None = None

    @property
    def ran(self) -> bool:
        """Whether the command ran to its end, with whatever exit code."""
        return self.exit_code is not None

    @property
    def ok(self) -> bool:
        """Whether the command ran, exited with 0, and read a table that did not change."""
        return self.exit_code == 0 and not self.interrupted

    @property
    def interrupted(self) -> bool:
        """Whether the table changed while it was read, so that entries may be missing: `ip` says so
        and exits with 0 (iproute2 lib/libnetlink.c, rtnl_dump_filter_l: NLM_F_DUMP_INTR)."""
        return b"Dump was interrupted" in self.stderr

    @property
    def command(self) -> str:
        """The argv as one readable line."""
        return " ".join(self.argv)

    @property
    def beginning(self) -> bytes:
        """The first bytes of stdout, at most a chunk: enough for an error or a single answer."""
        return next(iter(self.stdout.chunks()), b"")

    def has_all(self, *flows: Flow) -> bool:
        """Tell whether a table with `line_filter` lacks no entry of any of these flows for being
        too old: none of the flows that were asked for was left out, and none beside, or it is one
        of them."""
        if self.left_out or self.about:
            return False
        return not self.beside_left_out or all(
            any(wanted.fits(flow) for wanted in self.flows) for flow in flows
        )

    def why_not(self) -> str:
        """Return why this record has no answer, one sentence; "" when it has one."""
        if self.error:
            return self.error
        if self.exit_code not in (0, None):
            last = self.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            return f"exit code {self.exit_code}" + (f": {last}" if last else "")
        if self.interrupted:
            return "the table changed while it was read: ask again"
        return "" if self.ok else "it was not run"


@dataclass(frozen=True)
class Bundle:
    """An ordered store of records.

    Attributes:
        records: numbered from 1 in their order.
        source: where it came from: a file name, or LIVE.
        note: a sentence for the reader, e.g. that this is a replay; "" when there is none.
    """

    records: tuple[Record, ...]
    source: str = LIVE
    note: str = ""

    @cached_property
    def _index(self) -> dict[tuple[Place, tuple[str, ...]], Record]:
        # A later record of the same command at the same place replaces an earlier one.
        return {(record.place, record.argv): record for record in self.records}

    def record(self, place: Place, argv: Sequence[str]) -> Record | None:
        """Return the record of exactly this command at this place, or None."""
        return self._index.get((place, tuple(argv)))

    @cached_property
    def _places(self) -> dict[Place, list[Record]]:
        found: dict[Place, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.place, []).append(record)
        return found

    def at(self, place: Place) -> tuple[Record, ...]:
        """Return every record of one place, in order."""
        return tuple(self._places.get(place, ()))

    @property
    def recorded(self) -> str:
        """When a capture was made: RFC 3339 time of its first record, "" where none says, and for
        a live run."""
        if self.source == LIVE:
            return ""
        return min((record.started for record in self.records if record.started), default="")

    def places(self, kind: PlaceKind) -> tuple[Place, ...]:
        """Return the places of one kind that have records, in order of appearance."""
        return tuple(place for place in self._places if place.kind is kind)

    def numbered(self, number: int) -> Record:
        """Return the record with this number. Raises IndexError when there is none."""
        if not 1 <= number <= len(self.records):
            raise IndexError(number)
        return self.records[number - 1]


def bundle_of(records: Iterable[Record], source: str = LIVE, note: str = "") -> Bundle:
    """Return a bundle of these records, numbered anew in their order.

    Args:
        records: in order.
        source: a file name, or LIVE.
        note: a sentence for the reader, "" for none.
    """
    numbered = (replace(r, number=n) for n, r in enumerate(records, start=1))
    return Bundle(tuple(numbered), source, note)
