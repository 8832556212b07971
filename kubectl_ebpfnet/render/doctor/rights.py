"""`doctor`: this user's rights, and sections of labelled lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import print_rbac
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.doctor import Checkup
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.rights import COMMANDS, Right
from kubectl_ebpfnet.model.tiers import Held, held
from kubectl_ebpfnet.render.lists.listing import Column
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_LABEL = 24
_MOST = 3
_USES = {"node-pod": "node pods", "pull-secret": "--image-pull-secret"}


def pairs(title: str, rows: Iterable[tuple[str, str]], view: View) -> str:
    """Return a section of labelled lines, "" when every text is empty.

    Args:
        title: of the section.
        rows: (label, text); rows with an empty text are left out.
        view: the terminal.
    """
    lines = [line for label, text in rows if text for line in _pair(label, text, view)]
    return "".join(f"{line}\n" for line in [title, *lines]) if lines else ""


def _pair(label: str, text: str, view: View) -> list[str]:
    return hanging(f"  {label:<{_LABEL}}", escape(text), view.width)


@dataclass(frozen=True, slots=True)
class _RightRow:
    """Rights that differ in nothing but their verb, or their verb and resource."""

    right: Right
    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    evidence: tuple[Evidence, ...]


Table = Callable[[str, Sequence[Column[Any]], Sequence[Any]], str]


def rights(report: Checkup, view: View, table: Table, *, everything: bool) -> str:
    """Return what is lacking of each tier, then the denied rights by effect.

    Args:
        report: the answer.
        view: the terminal.
        table: lays a title, columns and rows out.
        everything: list every right in a row of its own, allowed ones too.
    """
    if not report.rights:
        return ""
    counts: list[tuple[str, str]] = []
    named: set[str] = set()
    for tier in held(report):
        lacked = [right for right in tier.denied if not right.namespaces]
        if len(lacked) == tier.needed:
            # A list of all rights would only repeat what the command prints.
            text = f"none of {tier.needed} rights ({print_rbac(tier.tier)} gives them)"
            named.update(right.words for right in lacked)
        elif tier.denied:
            few_ = few([right.words for right in tier.denied], _MOST)
            text = f"no: lacks {few_} ({print_rbac(tier.tier)})"
        else:
            text = f"yes, all {tier.needed} rights" if tier.known else "not known"
        counts.append((f"tier {tier.tier}", text))
    above = pairs("Rights", counts, view)
    denied = [r for r in report.rights if r.allowed is False and r.words not in named]
    rows = _right_rows(report.rights if everything else denied, by_resource=everything)
    return f"{above}\n{table('', _right_columns(rows, everything), rows)}" if rows else above


def _right_rows(rights: Iterable[Right], *, by_resource: bool) -> list[_RightRow]:
    rows: list[_RightRow] = []
    for right in rights:
        last = rows[-1] if rows else None
        if last is not None and replace(last.right, verb="", evidence=()) == replace(
            right, verb="", evidence=()
        ):
            verbs, evidence = (*last.verbs, right.verb), (*last.evidence, *right.evidence)
            rows[-1] = replace(last, verbs=verbs, evidence=evidence)
        else:
            rows.append(_RightRow(right, (right.verb,), (right.resource,), right.evidence))
    if by_resource:
        return rows
    joined: dict[Any, _RightRow] = {}
    for row in rows:
        right = row.right
        key = (row.verbs, _group(right), right.uses, right.effect, right.namespaces, right.name)
        first = joined.setdefault(key, row)
        if first is not row:
            joined[key] = replace(
                first,
                resources=(*first.resources, right.resource),
                evidence=(*first.evidence, *row.evidence),
            )
    return list(joined.values())


def _right_columns(rows: list[_RightRow], everything: bool) -> tuple[Column[_RightRow], ...]:
    judged: Column[_RightRow] = Column("ALLOWED", lambda row: _allowed(row.right))
    within: Column[_RightRow] = Column(
        "BUT ALLOWED IN", lambda row: ", ".join(row.right.namespaces), elastic=True
    )
    return (
        *((judged,) if everything else ()),
        Column("RIGHT" if everything else "DENIED", _right, elastic=True),
        *((within,) if any(row.right.namespaces for row in rows) else ()),
        Column("NEEDED FOR", _needed_for, elastic=True),
        Column("WITHOUT IT", lambda row: row.right.effect, elastic=True),
    )


def _right(row: _RightRow) -> str:
    """Return `get, list deployments, daemonsets (apps)`."""
    names = ", ".join(resource.partition(".")[0] for resource in row.resources)
    group = _group(row.right)
    named = f"{names} ({group})" if group else names
    return replace(row.right, verb=", ".join(row.verbs), resource=named).words


def _group(right: Right) -> str:
    return right.resource.partition(".")[2]


def _allowed(right: Right) -> str:
    return "not known" if right.allowed is None else "yes" if right.allowed else "no"


def _needed_for(row: _RightRow) -> str:
    uses = row.right.uses
    if set(COMMANDS) <= set(uses):
        uses = ("every command", *(use for use in uses if use not in COMMANDS))
    return ", ".join(_USES.get(use, use) for use in uses)


def tier_document(tier: Held) -> dict[str, Any]:
    """Return a tier as docs/json.md names it."""
    lacks = [right.words for right in tier.denied]
    return {"name": tier.tier.value, "held": tier.held, "lacks": lacks}
