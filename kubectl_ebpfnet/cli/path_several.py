"""`path -l app=x`, `path deploy/x --all-pods`: a line for each pod; those that differ in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.path_questions import Answers, SeveralPods
from kubectl_ebpfnet.cli.senders import Source
from kubectl_ebpfnet.cli.terminal import Progress, emit
from kubectl_ebpfnet.errors import EbpfnetError, UsageError
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.request import PathRequest

MOST = 20
"""Pods that are asked, one after the other: each costs what `path` costs."""
_FORMATS = ("table", "wide", "json", "yaml")


def wanted(source: Source | None, selector: str, *, all_pods: bool) -> SeveralPods | None:
    """Return the pods that -l or --all-pods choose, None for one pod.

    Raises:
        UsageError: both or none of source and -l, --all-pods without a workload, or a selector that
            cannot be read.
    """
    if selector:
        from kubectl_ebpfnet.model.label_selector import label_selector

        if source is not None:
            raise UsageError(
                "name cannot be provided when a selector is specified",
                hint="e.g. path -l app=web 1.1.1.1:80",
            )
        label_selector(selector)
        return SeveralPods(selector=selector)
    if not all_pods:
        return None
    if source is None or source.kind in ("pod", "node", "address"):
        raise UsageError(
            "--all-pods: only a workload has several pods",
            hint="e.g. path deploy/web --all-pods 1.1.1.1:80; -l chooses pods by their labels",
        )
    return SeveralPods(source.kind, source.name)


def check(output: str, *, watch: bool) -> None:
    """Refuse what does not go with several pods. Raises UsageError."""
    if watch:
        raise UsageError("-w watches one pod", hint="leave -l or --all-pods out")
    if output not in _FORMATS:
        raise UsageError(
            f"-o {output.partition('=')[0]} shows the answer of one pod",
            hint=f"-l and --all-pods go with -o {', '.join(_FORMATS)}",
        )


def answer(
    answers: Answers,
    pods_wanted: SeveralPods,
    request_of: Callable[[str, str], PathRequest],
    output: str,
    view: View,
    progress: Progress,
) -> int:
    """Ask for each pod and print the answers; return the exit code: of the worst verdict.

    Args:
        answers: live or of a capture.
        pods_wanted: the pods.
        request_of: (name of the pod, namespace of the run) → the question.
        output: table, wide, json or yaml.
        view: the terminal.
        progress: shows the current step.

    Raises:
        EbpfnetError: no pod, or none of them can be asked.
    """
    from kubectl_ebpfnet.render.path.several import Answered, document, table

    pods = answers.pods(pods_wanted)
    asked = pods[:MOST]
    found: list[Answered] = []
    missing: list[str] = []
    for number, pod in enumerate(asked, 1):
        progress.show(f"pod {number} of {len(asked)}: {pod.name}")
        try:
            path, bundle = answers.look(partial(request_of, pod.name))
        except EbpfnetError as error:
            if number == len(asked) and not found:
                raise
            missing.append(f"pod/{pod.name}: {error}")
            progress.warn(missing[-1])
            continue
        found.append(Answered(pod.name, path, bundle))
    left_out = len(pods) - len(asked)
    if output in ("json", "yaml"):
        from kubectl_ebpfnet.render.text.documents import safe_text

        text = safe_text(document(found, pods_wanted.title, left_out, missing), output)
    else:

        def in_full(one: Answered) -> str:
            return render(one.path, one.bundle, output, view)

        text = table(found, pods_wanted.title, left_out, view, in_full)
    progress.show("")
    emit(text)
    return _code([one.path.verdict for one in found], len(pods))


def _code(verdicts: Sequence[str], pods: int) -> int:
    if "dropped" in verdicts:
        return 3
    return 4 if "unknown" in verdicts or len(verdicts) < pods else 0
