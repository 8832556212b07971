"""A line for each thing that an earlier run left in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.render.text.durations import age
from kubectl_ebpfnet.render.text.style import escape


def line(title: str, row: Mapping[str, Any], *, dry_run: DryRun) -> str:
    """Return the line that reports what `cleanup` did with a leftover.

    Args:
        title: its kind and name, for example `namespace ebpfnet-0a1b2c3d`.
        row: its item in the document of `cleanup -o json`.
        dry_run: CLIENT and SERVER where nothing was to be removed.

    Returns:
        The line, with its newline.
    """
    outcome = f"removed{dry_run.suffix}"
    if row["error"]:
        outcome = f"not removed: {row['error']}"
    elif row["unconfirmed"]:
        outcome = f"removed; not confirmed to have ended: {', '.join(row['unconfirmed'])}"
    about = [f"{age(row['age'])} old", *([f"by {row['who']}"] if row["who"] else [])]
    if row["kind"] == "namespace":
        about.insert(0, f"node pods: {len(row['pods'])}")
    return escape(f"{title} ({', '.join(about)}) {outcome}") + "\n"
