"""Load compiled BPF objects: their programs one by one, their maps, their ring buffer.

An object is bpf/NAME.bpf.c, compiled by clang into `built/NAME.bpf.o`. What is attached lives as
long as this process: links and maps are descriptors, nothing is pinned, so a process that is killed
leaves nothing (kernel/bpf/syscall.c, bpf_link_release).

Source: libbpf's libbpf.h; Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.node.bpf import libbpf, maps

_HINT_LINES = 2
_FRAMING = ("processed ", "-- ", "libbpf: failed to load object", "libbpf: prog '")
"""What the lines of libbpf and the verifier begin with that stand round the reason."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A program that this kernel does not load or attach.

    Attributes:
        program: its name, the function's in the C file.
        reason: the error, and the last lines of what libbpf and the verifier print; one line.
    """

    program: str
    reason: str


@dataclass(frozen=True, slots=True)
class Target:
    """A loaded program that a program of ours is attached to: by fentry or fexit.

    Attributes:
        fd: a descriptor of it, open while the object is loaded.
        function: the whole name of its function.
    """

    fd: int
    function: str


class BpfObject:
    """A loaded object with its attached programs; closing it detaches all of them."""

    def __init__(
        self,
        name: str,
        programs: Collection[str],
        values: Mapping[str, bytes],
        ring_bytes: int,
        *,
        reused: Mapping[str, int] = MappingProxyType({}),
        target: Target | None = None,
    ) -> None:
        """Load an object and attach programs of it.

        Args:
            name: of the object: bpf/NAME.bpf.c.
            programs: names of those that are wanted; others are not loaded.
            values: first contents of sections of data, by name, e.g. ".rodata.config".
            ring_bytes: size of the map `events`: a power of two, at least a page.
            reused: descriptors of another object's maps and sections, to be used in place of those
                of the same name.
            target: what the programs are attached to where their sections name nothing.

        Raises:
            Unsupported: no libbpf, no compiled object, or this kernel takes none of the programs;
                the hint has what libbpf printed.
        """
        self._library = libbpf.library()
        self._name = name
        self._values = values
        self._ring_bytes = ring_bytes
        self._reused = reused
        self._target = target
        self._code = _code(name)
        self._on_close = ExitStack()
        self.refused: tuple[Refused, ...] = ()
        self.attached: tuple[str, ...] = ()
        self._pointer = self._loaded(programs)
        with ExitStack() as on_error:
            on_error.callback(self.close)
            self._attach()
            on_error.pop_all()

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach the programs, free the maps. Again: nothing."""
        self._on_close.close()

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map, which closes with the object. Raises KernelError."""
        return int(self._library.bpf_map__fd(self._map(self._pointer, name)))

    def section(self, name: str) -> bytes:
        """Return the contents of a section of data as they are now, e.g. ".data.counters".

        Raises:
            KernelError: there is no such section.
        """
        with maps.Map(os.dup(self.map_fd(name))) as section:
            return section.lookup(bytes(4)) or b""

    def ring(self, name: str = "events") -> RingBuffer:
        """Return a reader of a ring buffer, to be closed before this. Raises KernelError."""
        return RingBuffer(self.map_fd(name))

    # --- loading ----------------------------------------------------------------------------------

    def _loaded(self, wanted: Collection[str]) -> int:
        """Load what this kernel takes of the wanted programs; return the object's address."""
        try:
            pointer = self._load(wanted)
        except KernelError as problem:
            taken = [name for name in wanted if self._takes(name)]
            if not taken:
                hint = problem.hint
                if problem.errno == errno.EPERM:
                    hint = f"CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, allow it; {hint}"
                raise Unsupported(problem.message, problem.errno, hint=hint) from None
            pointer = self._load(taken)
        self._on_close.callback(self._library.bpf_object__close, pointer)
        return pointer

    def _takes(self, program: str) -> bool:
        """Tell whether the kernel loads this program alone, note the reason where it does not."""
        try:
            self._library.bpf_object__close(self._load([program]))
        except KernelError as problem:
            self._refuse(program, problem)
            return False
        return True

    def _load(self, wanted: Collection[str]) -> int:
        """Open the object anew and load these programs. Raises KernelError."""
        libbpf.printed()
        pointer = self._library.bpf_object__open_mem(self._code, len(self._code), None)
        if not pointer:
            raise _failure(f"open BPF object {self._name}", ctypes.get_errno())
        with ExitStack() as on_error:
            on_error.callback(self._library.bpf_object__close, pointer)
            for program, name in self._programs(pointer):
                self._library.bpf_program__set_autoload(program, name in wanted)
                if self._target is not None and name in wanted:
                    self._aim(program, self._target)
            for section, value in self._values.items():
                at = self._map(pointer, section)
                code = self._library.bpf_map__set_initial_value(at, value, len(value))
                if code:
                    problem = _failure(f"set {section} of BPF object {self._name}", -code)
                    if -code == errno.EINVAL:  # of another size
                        problem.hint = "the object is older than this program: make bpf"
                    raise problem
            for shared, fd in self._reused.items():
                code = self._library.bpf_map__reuse_fd(self._map(pointer, shared), fd)
                if code:
                    raise _failure(f"share {shared} with BPF object {self._name}", -code)
            if "events" not in self._reused:
                ring = self._map(pointer, "events")
                self._library.bpf_map__set_max_entries(ring, self._ring_bytes)
            code = self._library.bpf_object__load(pointer)
            if code:
                raise _failure(f"load BPF programs {', '.join(wanted)}", -code)
            on_error.pop_all()
        return int(pointer)

    def _aim(self, program: int, target: Target) -> None:
        code = self._library.bpf_program__set_attach_target(
            program, target.fd, target.function.encode()
        )
        if code:
            raise _failure(f"watch BPF program {target.function}", -code)

    def _attach(self) -> None:
        attached = []
        for program, name in self._programs(self._pointer):
            if not self._library.bpf_program__autoload(program):
                continue
            link = self._library.bpf_program__attach(program)
            if link:
                self._on_close.callback(self._library.bpf_link__destroy, link)
                attached.append(name)
            else:
                self._refuse(name, _failure(f"attach BPF program {name}", ctypes.get_errno()))
        self.attached = tuple(attached)
        if not attached:
            raise Unsupported(f"this kernel attaches no program of {self._name}: {self.refused}")

    def _refuse(self, program: str, problem: KernelError) -> None:
        words = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
        self.refused += (Refused(program, words),)

    def _programs(self, pointer: int) -> Iterator[tuple[int, str]]:
        program = self._library.bpf_object__next_program(pointer, None)
        while program:
            yield program, self._library.bpf_program__name(program).decode()
            program = self._library.bpf_object__next_program(pointer, program)

    def _map(self, pointer: int, name: str) -> int:
        found = self._library.bpf_object__find_map_by_name(pointer, name.encode())
        if not found:
            raise KernelError(f"BPF object {self._name} has no map {name}", errno.ENOENT)
        return int(found)


class RingBuffer:
    """Reads a ring buffer (BPF_MAP_TYPE_RINGBUF, Linux 5.8)."""

    def __init__(self, map_fd: int) -> None:
        """Map it. Raises KernelError."""
        self._library = libbpf.library()
        self._records: list[bytes] = []
        self._take = libbpf.SAMPLE(self._sample)  # lives as long as libbpf may call it
        self._pointer = self._library.ring_buffer__new(map_fd, self._take, None, None)
        if not self._pointer:
            raise _failure("map the BPF ring buffer", ctypes.get_errno())

    def _sample(self, _context: int, at: int, size: int) -> int:
        self._records.append(ctypes.string_at(at, size))
        return 0

    def read(self, seconds: float) -> list[bytes]:
        """Return what is there, oldest first; wait for the first one at most so long.

        Args:
            seconds: 0 does not wait.

        Raises:
            KernelError: it cannot be read.
        """
        code = self._library.ring_buffer__poll(self._pointer, round(seconds * 1000))
        if code < 0 and -code != errno.EINTR:
            raise _failure("read the BPF ring buffer", -code)
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Unmap it. Again: nothing."""
        if self._pointer:
            self._library.ring_buffer__free(self._pointer)
            self._pointer = None


def _code(name: str) -> bytes:
    try:
        return (libbpf.BUILT / f"{name}.bpf.o").read_bytes()
    except FileNotFoundError:
        raise Unsupported(
            f"this program was installed without compiled BPF programs ({name}.bpf.o is missing)",
            hint="make bpf compiles them, where clang and libbpf-dev are",
        ) from None


def _failure(what: str, code: int) -> KernelError:
    """Return an error with the last lines that libbpf printed and that say why as hint."""
    lines = [line.strip() for line in libbpf.printed().splitlines()]
    telling = [line for line in lines if line and not line.startswith(_FRAMING)]
    hint = "; ".join(telling[-_HINT_LINES:])
    return KernelError(f"{what}: {os.strerror(code)}", code, hint=hint)
