"""The answers of several pods to one question: a line each, and those that differ in full."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import SEVERAL_SCHEMA, Path
from kubectl_ebpfnet.render.path.headline import VERDICT, because
from kubectl_ebpfnet.render.path.steady import steady
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_NAMED = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """A pod's answer: its name, the path, and what it was explained from."""

    pod: str
    path: Path
    bundle: Bundle

    @property
    def group(self) -> tuple[str, str]:
        """What pods that fare alike have in common: the verdict, and for a bad one its reason."""
        path = self.path
        if path.verdict.let_through:
            return path.verdict.value, ""
        own = rf"(?<![\w.-]){re.escape(self.pod)}(?![\w.-])"  # not a name that holds it
        return path.verdict.value, steady(re.sub(own, "POD", path.cause or path.reason))


def table(
    found: Sequence[Answered],
    title: str,
    left_out: int,
    view: View,
    in_full: Callable[[Answered], str],
) -> str:
    """Return a line for each pod, then an answer in full for each way in which pods are lost, or
    in which it is not known what becomes of their packets.

    Args:
        found: of at least one pod.
        title: which pods they are.
        left_out: pods that were not asked.
        view: the terminal.
        in_full: prints an answer.
    """
    counted = Counter(one.path.verdict.value for one in found)
    verdicts = ", ".join(f"{count} {name}" for name, count in counted.most_common())
    pods = f"{len(found)} pod{'s' if len(found) != 1 else ''} of {title}"
    lines = hanging("", view.text(f"{pods}: {verdicts}"), view.prose)
    if left_out:
        lines.append(f"{left_out} more, which were not asked")
    names = [view.text(f"pod/{one.pod}") for one in found]
    room = max(map(len, names))
    room = room if room < (view.prose or 80) // 2 else 0
    lines.append("")
    for one, name in zip(found, names, strict=True):
        word = Style(view.color).verdict_word(one.path.verdict)
        label = word + " " * (VERDICT - len(one.path.verdict.value))
        why = next(iter(because(one.path)), one.path.reason)
        pod = f"{name:<{room}}  "
        lines += hanging(label + pod, view.text(why), view.prose, VERDICT + len(pod))
    groups: dict[tuple[str, str], list[Answered]] = {}
    for one in sorted(found, key=lambda one: one.path.verdict.let_through):
        groups.setdefault(one.group, []).append(one)
    sections = ["\n".join(lines) + "\n"]
    for alike in groups.values():
        if alike[0].path.verdict.let_through:
            continue
        others = [one.pod for one in alike[1:]]
        also = f"So fare {few(others, _NAMED, view.text)}:\n" if others else ""
        sections.append(also + in_full(alike[0]))
    return "\n".join(sections)


def document(
    found: Sequence[Answered], title: str, left_out: int, missing: Sequence[str]
) -> dict[str, Any]:
    """Return the JSON form: `items` are documents of `path`; docs/json.md.

    Args:
        found: the answers.
        title: which pods they are.
        left_out: pods that were not asked.
        missing: pods without an answer, and why.
    """
    from kubectl_ebpfnet.render.path.document import document as of_path

    return {
        "schema": SEVERAL_SCHEMA,
        "pods": title,
        "left_out": left_out,
        "missing": list(missing),
        "items": [of_path(one.path, one.bundle) for one in found],
    }
