"""Remove what runs left, one after the other; ask before what a run may still use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cli.terminal import Progress, confirmed
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.render.text.style import escape

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.cluster.nodepods.leftovers import Leftover

IN_USE = "its time is not over: a run may use it, or somebody keeps it"


def removed(
    session: Session,
    named: Collection[str],
    progress: Progress,
    *,
    dry_run: DryRun,
    yes: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Remove leftovers; yield the title of each, and its item in the document of `cleanup`.

    Args:
        session: the connection.
        named: namespaces to look at, and to remove without a question; () for all.
        progress: shows the current step.
        dry_run: with CLIENT and SERVER nothing is removed; the server checks what it is asked.
        yes: remove without a question.

    Raises:
        ClusterError: leftovers cannot be listed.
    """
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.cluster.nodepods.leftovers import leftovers, rehearse_removal, remove

    progress.show("looking")
    api = Api(session)
    for found in leftovers(api):
        if named and (found.namespace or found.name) not in named:
            continue
        row = {**asdict(found), "removed": False, "unconfirmed": [], "error": ""}
        over = found.expired or found.leaving
        does = dry_run is DryRun.NONE
        if does and not over and not named and not yes:
            row["error"] = _refusal(found, progress)
        if dry_run is not DryRun.CLIENT and not row["error"]:
            progress.show(f"removing {found}")
            try:
                if does:
                    row |= {"unconfirmed": remove(api, found), "removed": True}
                else:
                    rehearse_removal(api, found)
            except ClusterError as error:
                row["error"] = f"{error}; {error.hint}" if error.hint else str(error)
        yield str(found), row


def _refusal(found: Leftover, progress: Progress) -> str:
    """Ask whether to remove what may be in use; return why not, "" for a yes."""
    progress.show("")
    by = f", by {found.who}" if found.who else ""
    answer = confirmed(f"{found}{by}: {IN_USE}. Remove it?")
    if answer is None:
        return f"{IN_USE}; --yes removes it"
    return "" if answer else "not wanted"


def left_alone(session: Session) -> list[str]:
    """Return a line about node pods that somebody installed: they are of no run, and stay."""
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.cluster.nodepods.listed import listed_node_pods
    from kubectl_ebpfnet.model.node_pods import Origin

    pods = listed_node_pods(Api(session), session.namespace)
    installed = [pod for pod in pods if pod.origin is Origin.INSTALLED]
    if not installed:
        return []
    where = ", ".join(dict.fromkeys(pod.namespace for pod in installed))
    return [
        f"left alone: {len(installed)} installed node pods in namespace {where}, which are of no"
        " run; kubectl delete removes what kubectl apply made"
    ]


def nothing_left(rows: Sequence[Mapping[str, Any]], named: Sequence[str]) -> list[str]:
    """Return lines that say where nothing was found.

    Args:
        rows: what was found.
        named: namespaces that were asked for; () for all.
    """
    if not named:
        return [] if rows else ["No leftovers of any run found.\n"]
    found = {row["namespace"] or row["name"] for row in rows}
    return [
        escape(f"No leftovers of any run found in namespace {name}.") + "\n"
        for name in named
        if name not in found
    ]
