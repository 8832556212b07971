"""Where a command runs: a container of a pod."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod; `name` "" means the pod's only or default one."""

    namespace: str
    pod: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}" + (f" ({self.name})" if self.name else "")
