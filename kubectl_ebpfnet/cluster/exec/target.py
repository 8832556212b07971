"""The container that a command runs in."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod.

    Attributes:
        namespace: namespace of the pod.
        pod: name of the pod.
        name: name of the container, "" for the only or default container.
    """

    namespace: str
    pod: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}" + (f" ({self.name})" if self.name else "")
