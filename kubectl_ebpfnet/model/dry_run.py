"""kubectl's --dry-run: what is done in place of a change."""

from __future__ import annotations

from enum import StrEnum


class DryRun(StrEnum):
    """Values of --dry-run (k8s.io/kubectl/pkg/cmd/util, DryRunStrategy)."""

    NONE = "none"
    CLIENT = "client"
    """Say what would be done; change nothing, and do not ask the server about it."""
    SERVER = "server"
    """Send requests that the server checks, but does not persist."""

    @property
    def query(self) -> dict[str, str]:
        """The query of a request of the Kubernetes API."""
        return {"dryRun": "All"} if self is DryRun.SERVER else {}

    @property
    def suffix(self) -> str:
        """What stands behind a line that says what was done, as kubectl writes it."""
        return {"client": " (dry run)", "server": " (server dry run)"}.get(self, "")
