"""What `cleanup` does with each thing that a run left, and the line that tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.errors import ClusterError

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.cluster.nodepods.leftovers import Leftover


def removed(api: Api, found: Leftover) -> dict[str, Any]:
    """Take it away; what came of it, errors included."""
    from kubectl_ebpfnet.cluster.nodepods.leftovers import remove

    try:
        return {"removed": True, "unconfirmed": remove(api, found)}
    except ClusterError as error:
        return {"error": f"{error}; {error.hint}" if error.hint else str(error)}


def row(found: Leftover, outcome: dict[str, Any]) -> dict[str, Any]:
    """It and what came of it, as plain values."""
    from dataclasses import asdict

    return {**asdict(found), "removed": False, "unconfirmed": [], "error": "", **outcome}


def line(found: Leftover, row: dict[str, Any], dry_run: bool) -> str:
    """The same as a line of text."""
    from kubectl_ebpfnet.render.text.durations import age
    from kubectl_ebpfnet.render.text.style import escape

    what = "would be removed" if dry_run else "removed"
    if row["error"]:
        what = f"not removed: {row['error']}"
    elif row["unconfirmed"]:
        what = f"removed; not confirmed to have ended: {', '.join(row['unconfirmed'])}"
    about = [f"{age(found.age)} old", *([f"by {found.who}"] if found.who else [])]
    if found.kind == "namespace":
        about.insert(0, f"node pods: {len(found.pods)}")
    return escape(f"{found} ({', '.join(about)}) {what}") + "\n"
