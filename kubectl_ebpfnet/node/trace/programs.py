"""The second layer of `trace`, bpf/programs.bpf.c: what other programs answer, and functions of the
kernel's own way. It shares the maps of the first layer (packets.py), so both follow the same.

It needs BPF trampolines. Where the kernel refuses them nothing of it is attached; why is told once.

Sources: kernel/bpf/trampoline.c, bpf_check_attach_target in kernel/bpf/verifier.c; the answers in
include/uapi/linux/pkt_cls.h and bpf.h (tcx's and netkit's have the numbers of tc's).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from kubectl_ebpfnet.errors import Incomplete, KernelError, Unsupported
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.events import PacketEvent, Place
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import libbpf, syscall
from kubectl_ebpfnet.node.bpf.attachments import attachments
from kubectl_ebpfnet.node.bpf.objects import BpfObject, Refused, Target
from kubectl_ebpfnet.node.bpf.programs import ProgramReader
from kubectl_ebpfnet.node.trace.packets import FUNCTIONS

LAYER = "programs' verdicts"
"""What is lacking without this layer, in a word for a header."""
MOST_PROGRAMS = 64
"""Programs of which verdicts are seen at a time: each is watched by a copy of its own."""
_HOOKS = ("xdp", "tcx/", "clsact/", "netkit/")
_XDP = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
_TC = (
    "TC_ACT_OK", "TC_ACT_RECLASSIFY", "TC_ACT_SHOT", "TC_ACT_PIPE", "TC_ACT_STOLEN",
    "TC_ACT_QUEUED", "TC_ACT_REPEAT", "TC_ACT_REDIRECT", "TC_ACT_TRAP",
)  # fmt: skip
_UNSPEC = 0xFFFFFFFF
UNSAFE = "this kernel may free a BPF trampoline in use, or tells no types (BTF)"
_FUNC = 12  # BTF_KIND_FUNC


def verdict_name(hook: str, answer: int) -> str:
    """Return the kernel's name of a program's answer.

    Args:
        hook: as in Attachment.
        answer: as an unsigned number of 32 bits.
    """
    names = _XDP if hook == "xdp" else _TC
    if answer == _UNSPEC and hook != "xdp":
        return "TC_ACT_UNSPEC"
    return names[answer] if answer < len(names) else f"answer {answer}"


def attached_now() -> list[Attachment]:
    """Return what is attached in this network namespace, as far as it can be read.

    Raises:
        KernelError: nothing can be read.
    """
    found: list[Attachment] = []
    with contextlib.suppress(Incomplete):
        found.extend(attachments(NodeRequest(0, node_argv("attachments"))))
    return found


def trampolines_are_safe() -> bool:
    """Tell whether this kernel waits for who is in a trampoline before it frees that: Linux 5.12
    and its stable kernels, whose kernel/bpf/trampoline.c has this function."""
    library = libbpf.library()
    btf = library.btf__load_vmlinux_btf()
    if not btf:
        libbpf.printed()
        return False
    try:
        found: int = library.btf__find_by_name_kind(btf, b"__bpf_tramp_image_put_rcu", _FUNC)
        return found > 0
    finally:
        library.btf__free(btf)


def no_trampolines(problem: KernelError) -> str:
    """Return the sentence for a kernel that refuses them."""
    why = os.strerror(problem.errno) if problem.errno else problem.message
    return f"this kernel takes no BPF trampoline (fentry, fexit): {why}"


class SecondLayer:
    """What is attached of it; nothing is left when it is closed, or its process is killed."""

    def __init__(self, shared: Mapping[str, int]) -> None:
        """Attach to the kernel's functions, if this kernel lets us.

        Args:
            shared: descriptors of the first layer's maps (packets.SHARED).
        """
        self._shared = shared
        self._on_close = ExitStack()
        self._watched: dict[int, BpfObject] = {}
        self._refused: set[int] = set()
        self._hooks: dict[int, dict[str, str]] = {}
        self._names: dict[int, str] = {}
        self.works = False
        self.lacking: list[Refused] = []
        self.attached: tuple[Place, ...] = ()
        if not trampolines_are_safe():
            self.lacking.append(Refused(LAYER, UNSAFE))
            return
        try:
            self._attach_functions(FUNCTIONS[:1])
        except (Unsupported, KernelError) as problem:
            self.lacking.append(Refused(LAYER, no_trampolines(problem)))
            return
        self.works, self.attached = True, (Place.PROGRAM, Place.KERNEL)
        try:
            self._attach_functions(FUNCTIONS[1:])
        except (Unsupported, KernelError) as problem:
            self.lacking.append(Refused("functions of the kernel", problem.message))

    def _attach_functions(self, names: tuple[str, ...]) -> None:
        loaded = BpfObject("programs", names, {}, 0, reused=self._shared)
        self._on_close.callback(loaded.close)
        self.lacking += loaded.refused

    def close(self) -> None:
        """Detach everything."""
        for each in self._watched.values():
            each.close()
        self._watched.clear()
        self._on_close.close()

    def watch(self, found: Iterable[Attachment]) -> list[Refused]:
        """Watch the programs that are attached now, and no others: what is watched stays loaded.

        Args:
            found: what is attached at the node's devices.

        Returns:
            Programs of now whose verdicts are not seen, and why, each once.
        """
        if not self.works:
            return []
        hooks: dict[int, dict[str, str]] = {}
        for each in found:
            if each.program_id and each.direct_action and each.hook.startswith(_HOOKS):
                hooks.setdefault(each.program_id, {})[each.device] = each.hook
        self._hooks = hooks
        for gone in self._watched.keys() - hooks.keys():
            self._watched.pop(gone).close()
        refused = []
        reader = ProgramReader()
        for program in sorted(hooks.keys() - self._watched.keys() - self._refused):
            if (problem := self._watch(program, reader)) is not None:
                self._refused.add(program)
                refused.append(problem)
        return refused

    def _watch(self, program: int, reader: ProgramReader) -> Refused | None:
        """Watch one program; return why that cannot be."""
        hook = next(iter(self._hooks[program].values()))
        label = f"verdicts of program {program} ({hook})"
        if len(self._watched) >= MOST_PROGRAMS:
            return Refused(label, f"{MOST_PROGRAMS} programs are watched, and no more")
        try:
            known = reader.program(program)
            if known is None:
                return Refused(label, "it is gone")
            self._names[program] = known.name
            with syscall.closing(syscall.open_program(program)) as fd:
                self._watched[program] = BpfObject(
                    "programs",
                    ("xdp_exit" if hook == "xdp" else "tc_exit",),
                    {".rodata.target": program.to_bytes(4, "little")},
                    0,
                    reused=self._shared,
                    target=Target(fd, known.name),
                )
        except (Unsupported, KernelError) as problem:
            return Refused(label, f"{problem.message}; {problem.hint}")
        return None

    def named(self, event: PacketEvent) -> PacketEvent:
        """Return an event of PROGRAM with the name, hook and verdict in place of numbers."""
        if event.place is not Place.PROGRAM:
            return event
        program = int(event.program)
        hooks = self._hooks.get(program, {})
        hook = hooks.get(event.device) or next(iter(hooks.values()), "")
        name = self._names.get(program, "")
        return replace(
            event,
            program=f"{name} (id {program})" if name else f"id {program}",
            verdict=verdict_name(hook, int(event.verdict)),
            where=hook,
        )
