"""The words of `path`: who sends what to whom, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.path_questions import SeveralPods, open_answers
from kubectl_ebpfnet.cli.senders import Source
from kubectl_ebpfnet.cli.terminal import emit, reading_width, view_of
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.request import PathRequest
from kubectl_ebpfnet.render.path.formats import MODULES, checked, render
from kubectl_ebpfnet.render.text.view import View

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.path import Path

Selector = Annotated[
    str,
    Option(
        "-l", "--selector", metavar="SELECTOR", show_default=False,
        help="Ask for each pod with these labels, at most 20: no SOURCE then",
    ),
]  # fmt: skip
AllPods = Annotated[bool, Option("--all-pods", help="Ask for each pod of the workload, at most 20")]
_EXIT = {"dropped": 3, "unknown": 4}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        sender: the source, None where labels choose pods.
        several: the pods that ask, None for one source.
        request_of: (a pod's name, "" for the source; namespace of the run) → the request.
    """

    sender: Source | None
    several: SeveralPods | None
    request_of: Callable[[str, str], PathRequest]


@dataclass(frozen=True, slots=True)
class Shown:
    """How an answer is shown: the format, the terminal, and whether it is watched."""

    output: str
    view: View
    watch: bool


def question(
    source: str,
    destination: str,
    protocol: str,
    to_namespace: str,
    *,
    ipv4: bool,
    ipv6: bool,
    size: str,
    via: str,
    selector: str,
    all_pods: bool,
) -> Question:
    """Read what is asked: the arguments and flags of these names, "" or False where not given.

    Raises:
        UsageError: a word is missing or cannot be read, or two contradict each other.
    """
    if selector and not destination:
        source, destination = "", source
    if not destination or not (source or selector):
        raise UsageError(
            f"{'DESTINATION' if source or selector else 'SOURCE'} is missing",
            hint="e.g. path pod/client 1.1.1.1:80, path deploy/cart svc/db",
        )

    def read(word: str) -> tuple[Source, Callable[[str], PathRequest]]:
        return arguments.question(
            word, destination, protocol, to_namespace, ipv4=ipv4, ipv6=ipv6, size_word=size,
            via_word=via,
        )  # fmt: skip

    sender, request_in = read(source or "pod/any")
    several = None
    if selector or all_pods:
        from kubectl_ebpfnet.cli import path_several

        several = path_several.wanted(sender if source else None, selector, all_pods=all_pods)

    def request_of(pod: str, namespace: str) -> PathRequest:
        return read(f"pod/{pod}")[1](namespace) if pod else request_in(namespace)

    return Question(sender if source else None, several, request_of)


def shown(output: str, colored: str, verbosity: int, *, watch: bool) -> Shown:
    """Read how the answer is shown. Raises UsageError."""
    output = checked(output)
    return Shown(output, view_of(reading_width(), colored, verbosity), watch)


def answered(
    asked: Question, how: Shown, capture: str, global_flags: GlobalFlags, timeout: str
) -> int:
    """Print the answer; return the exit code.

    Args:
        asked, how: as read.
        capture: of --from.
        global_flags: kubectl's flags and node access.
        timeout: of --timeout.

    Raises:
        EbpfnetError: the cluster or the capture cannot be read, or a flag does not fit.
    """
    sender, output, view = asked.sender, how.output, how.view
    if sender is not None:
        global_flags = global_flags.within(sender.namespace, sender.text)
    limit = arguments.duration(timeout, "--timeout")
    preload = ("kubectl_ebpfnet.explain.path.walk", MODULES[output.partition("=")[0]])
    if asked.several is not None:
        from kubectl_ebpfnet.cli import path_several

        path_several.check(output, watch=how.watch)
    if how.watch:
        from kubectl_ebpfnet.cli import path_watch

        path_watch.check(output)
        global_flags = global_flags.watching()
    with (
        global_flags.progress() as progress,
        open_answers(capture, global_flags, limit, progress, preload) as answers,
    ):
        if asked.several is not None:
            return path_several.answer(
                answers, asked.several, asked.request_of, output, view, progress
            )

        def look() -> tuple[Path, Bundle]:
            return answers.look(lambda namespace: asked.request_of("", namespace))

        if how.watch and not capture:
            path_watch.watch(look, output, view, progress)
        path, bundle = look()
        text = render(path, bundle, output, view)
    emit(text)
    return _EXIT.get(path.verdict, 0)
