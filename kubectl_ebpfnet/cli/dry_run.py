"""Read --dry-run as kubectl does (k8s.io/kubectl/pkg/cmd/util, GetDryRunStrategy)."""

from __future__ import annotations

from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

BARE = "unchanged"
"""The value of a --dry-run without one; kubectl's NoOptDefVal."""
HELP = "none, server or client: change nothing, say what would be changed"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def dry_run(word: str | None) -> DryRun:
    """Return the strategy that a word names; without a word it is none.

    Raises:
        UsageError: it is no strategy.
    """
    old = {BARE: DryRun.CLIENT, **dict.fromkeys(_TRUE, DryRun.CLIENT)}
    old |= dict.fromkeys(_FALSE, DryRun.NONE)
    if word is None:
        return DryRun.NONE
    if word in old:
        given = "" if word == BARE else f"={word}"
        what = "" if word == BARE else " (boolean value)"
        Progress().warn(
            f"--dry-run{given} is deprecated{what} and can be replaced with --dry-run={old[word]}."
        )
        return old[word]
    if word not in list(DryRun):
        raise UsageError(f'Invalid dry-run value ({word}). Must be "none", "server", or "client".')
    return DryRun(word)
