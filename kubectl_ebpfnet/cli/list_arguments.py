"""The flags of lists (`flows`, `programs`), named and refused as kubectl does, and how a list is
printed: the table to stdout, what is to be said beside it to stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.destinations import destination
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.object_words import shown
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.render.output.formats import LISTS, OutputFormat, output_format
from kubectl_ebpfnet.render.text.view import View

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.lists import ListReader, PodChoice, SurveyedPods, SurveyedTarget
    from kubectl_ebpfnet.collect.survey import ScopeOf
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.protocol.questions import FlowFilter
    from kubectl_ebpfnet.render.lists.listing import Listing

Target = Annotated[
    str,
    Argument(metavar="TARGET", help="pod/NAME, deploy/NAME or node/NAME; none with -A or -l"),
]
To = Annotated[
    str,
    Option(
        "--to", metavar="PEER[:PORT]", show_default=False,
        help="Address of the peer, pod/NAME, svc/NAME or node/NAME",
    ),
]  # fmt: skip
AllNamespaces = Annotated[
    bool, Option("-A", "--all-namespaces", help="Of the pods of all namespaces, at most 100")
]
Selector = Annotated[
    str,
    Option(
        "-l", "--selector", metavar="SELECTOR", help="Of the pods with these labels, at most 100",
        show_default=False,
    ),
]  # fmt: skip
SortBy = Annotated[
    str,
    Option(
        "--sort-by", metavar="COLUMN|FIELD", show_default=False,
        help="Sort by a column, or by a field of -o json: docs/lists.md",
    ),
]  # fmt: skip
NoHeaders = Annotated[bool, Option("--no-headers", help="Print a table without headers")]
Output = Annotated[
    str,
    Option(
        "-o", "--output", metavar="FORMAT",
        help="One of: table, wide, name, json, yaml, jsonpath=…, jsonpath-as-json=…, "
        "jsonpath-file=…, custom-columns=…, custom-columns-file=…",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListFlags:
    """How a list is to be printed, as given.

    Attributes:
        output: of -o.
        sort_by: of --sort-by, "" for the list's own order.
        no_headers: of --no-headers.
        view: the terminal.
    """

    output: OutputFormat
    sort_by: str
    no_headers: bool
    view: View

    def text(self, listing: Listing[Any], bundle: Bundle) -> str:
        """Return the list as text. Raises UsageError where a template or field does not fit."""
        from kubectl_ebpfnet.render.lists.listing import render

        if self.sort_by:
            from kubectl_ebpfnet.render.lists.sort import sorted_by

            listing = sorted_by(listing, self.sort_by)
        headers = not self.no_headers
        return render(listing, bundle, self.output.word, self.view, headers=headers)

    def say_beside(self, listing: Listing[Any], bundle: Bundle, progress: Progress) -> None:
        """Print to stderr what the list does not say."""
        for line in self._beside(listing, bundle):
            progress.warn(line)

    def watched(self, listing: Listing[Any], bundle: Bundle) -> str:
        """Return the list as text, and below it what it does not say."""
        from kubectl_ebpfnet.render.text.style import escape

        lines = map(escape, self._beside(listing, bundle))
        return self.text(listing, bundle) + "".join(f"{line}\n" for line in lines)

    def _beside(self, listing: Listing[Any], bundle: Bundle) -> list[str]:
        from kubectl_ebpfnet.render.lists.listing import remarks

        if self.output.of_document:
            # JSON and YAML say all of it themselves, and a template chooses what it says.
            told = self.output.name in ("json", "yaml") or listing.known
            return [] if told else [listing.nothing]
        return remarks(listing, bundle, ages=self.output.name in ("table", "wide"))


def list_flags(output: str, sort_by: str, no_headers: bool, view: View) -> ListFlags:
    """Read the flags of a list.

    Raises:
        UsageError: no such format, or a template or field that cannot be read.
    """
    wanted = output_format(output, LISTS)
    if sort_by[:1] in (".", "{"):
        from kubectl_ebpfnet.render.output.jsonpath import JsonPath, relaxed

        JsonPath(relaxed(sort_by))  # refused before any cluster is asked
    return ListFlags(wanted, sort_by, no_headers, view)


@dataclass(frozen=True, slots=True)
class ListRead:
    """What was read for a list.

    Attributes:
        answer: what it shows.
        bundle: what the answer was made of.
        left_out: pods that fit as well, and that were not asked.
        nobody: which pods were looked for, where there are none; else "".
    """

    answer: Any
    bundle: Bundle
    left_out: int = 0
    nobody: str = ""


@dataclass(frozen=True, slots=True)
class Requested:
    """What a list is of: a target, or several pods.

    Attributes:
        target: a pod, a workload or a node; None for several pods.
        everywhere, selector: of -A and -l.
    """

    target: arguments.CaptureTarget | None
    everywhere: bool
    selector: str

    def within(self, global_flags: GlobalFlags) -> GlobalFlags:
        """Return the flags for the target's namespace. Raises UsageError for two of them."""
        if self.target is None:
            return global_flags
        return global_flags.within(self.target.namespace, self.target.text)

    def read(
        self,
        reader: ListReader,
        scope: ScopeOf,
        one: Callable[[SurveyedTarget], Any],
        several: Callable[[SurveyedPods], Any],
    ) -> ListRead:
        """Read the target or the pods, and make the answer.

        Args:
            reader: of the cluster or the capture.
            scope: what to ask.
            one, several: make the answer.
        """
        if self.target is not None:
            found = reader.target(self.target, scope)
            return ListRead(one(found), found.bundle)
        pods = reader.pods(self._choice, scope)
        nobody = "" if pods.pods else pods.target
        return ListRead(several(pods), pods.bundle, pods.left_out, nobody)

    @property
    def _choice(self) -> PodChoice:
        from kubectl_ebpfnet.collect.lists import PodChoice

        return PodChoice(self.everywhere, self.selector)


def requested(word: str, everywhere: bool, selector: str, command: str) -> Requested:
    """Read what a list is of.

    Args:
        word: the target, "" for none.
        everywhere, selector: of -A and -l.
        command: for errors.

    Raises:
        UsageError: no target, or one beside -A or -l; a selector that cannot be read.
    """
    if not word and not everywhere and not selector:
        raise UsageError(
            "TARGET is missing", hint=f"e.g. {command} pod/NAME; -A or -l choose several pods"
        )
    if word and selector:
        raise UsageError("name cannot be provided when a selector is specified")
    if word and everywhere:
        raise UsageError("a resource cannot be retrieved by name across all namespaces")
    from kubectl_ebpfnet.model.label_selector import label_selector

    label_selector(selector)
    target = arguments.pod_or_node(word, command) if word else None
    return Requested(target, everywhere, selector)


def peers_of(to: str, protocol_word: str) -> Callable[[ListReader], tuple[FlowFilter, ...]]:
    """Return what makes the filters of --to and --protocol, by a reader that resolves objects.

    Raises:
        UsageError: --to is no address, pod, node or Service, or --protocol no protocol.
    """
    end = destination(to) if to else None
    if end is None or end.address is not None:
        filters = arguments.peers(to, protocol_word)
        return lambda _: filters
    if end.kind not in ("pod", "service", "node"):
        raise UsageError(
            f"--to {shown(to)}: not an address, pod/NAME, svc/NAME or node/NAME",
            hint="e.g. --to 1.1.1.1, --to 10.96.0.1:443, --to [fd00::1]:80, --to svc/web:http",
        )
    given = protocol_word or end.protocol is not None
    number = arguments.protocol(protocol_word, end) if given else None

    def resolved(reader: ListReader) -> tuple[FlowFilter, ...]:
        from kubectl_ebpfnet.collect.lists import PeerObject

        port = end.port if end.port is not None else end.port_name or None
        return reader.peers(PeerObject(end.kind, end.namespace, end.name, port, number))

    return resolved
