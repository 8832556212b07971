"""The answer of `programs`: every BPF program that acts on a pod or a node. JSON: docs/json.md."""

from __future__ import annotations

from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence

SCHEMA = "ebpfnet.dev/programs/v1"


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A program at a hook.

    Attributes:
        where: whose namespace the hook is in: `pod NAMESPACE/NAME` or `node NAME`.
        attachment: the hook: device, attach type, priority, bpf_link.
        order: 1-based position at its device and direction, or its cgroup and attach type.
        program: further facts of the program, None when none are known.
        role: what it is for when it is Cilium's, "" for others.
        evidence: what names it.
        by_pin: a pin alone names it: whether it is attached is not known.
    """

    where: str
    attachment: Attachment
    order: int
    program: Program | None = None
    role: str = ""
    evidence: tuple[Evidence, ...] = ()
    by_pin: bool = False

    @property
    def name(self) -> str:
        """The longest known name, "" when none is known."""
        attached = self.attachment.program_name.removesuffix(":[*fsobj]")
        known = self.program.name if self.program is not None else ""
        return known if known.startswith(attached) else attached


@dataclass(frozen=True, slots=True)
class ProgramList:
    """Every program that acts on a pod or a node.

    Attributes:
        target: `pod NAMESPACE/NAME`, `node NAME`, or which pods: `pods in default`, ….
        node: the node that was asked, "" for several and where the pod has none.
        programs: in the order of devices and hooks; at one hook in the order in which they run.
        missing: one sentence for each thing that could not be looked at.
        asked: RFC 3339 time at which the programs were listed, "" when not known: ages count to it.
        owners: of each program, the pod that it acts on, `NAMESPACE/NAME`; () for a node.
    """

    target: str
    node: str
    programs: tuple[AttachedProgram, ...]
    missing: tuple[str, ...] = ()
    asked: str = ""
    owners: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether a program was found, or everything was looked at, so that there is none."""
        return bool(self.programs) or not self.missing
