"""libbpf.so.1 by ctypes: the functions that are called here, and what it prints.

It is the system's (Debian's libbpf1), or the one that came with the node side: Debian 12's, with
its libelf, for amd64 and arm64 (bpf/libraries.py).

Sources: libbpf's libbpf.h (1.0 and later: a function that fails returns NULL or a negative errno,
and sets errno), dlopen(3).
"""

from __future__ import annotations

import ctypes
import functools
import platform
from ctypes import CFUNCTYPE, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path

from kubectl_ebpfnet.errors import Unsupported

BUILT = Path(__file__).parent / "built"
"""What is compiled when this program is packaged; nothing of it is in the repository."""
SAMPLE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
"""Takes one record of a ring buffer: context, address, bytes; returns 0 to go on."""
_PRINT = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)
_FUNCTIONS = {
    "bpf_object__open_mem": (c_void_p, [c_char_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__autoload": (c_bool, [c_void_p]),
    "bpf_program__set_attach_target": (c_int, [c_void_p, c_int, c_char_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__set_initial_value": (c_int, [c_void_p, c_char_p, c_size_t]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "ring_buffer__new": (c_void_p, [c_int, SAMPLE, c_void_p, c_void_p]),
    "ring_buffer__poll": (c_int, [c_void_p, c_int]),
    "ring_buffer__free": (None, [c_void_p]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "btf__free": (None, [c_void_p]),
    "libbpf_set_print": (c_void_p, [_PRINT]),
}
_WARNINGS = 0  # LIBBPF_WARN
_LONGEST = 1 << 20  # the verifier tells all that it followed
_libc = ctypes.CDLL(None)
_line = ctypes.create_string_buffer(_LONGEST)
_printed: list[str] = []


@_PRINT  # type: ignore[untyped-decorator]  # of ctypes
def _take(level: int, text: int, arguments: int) -> int:
    """Keep a line of libbpf. The third argument is a va_list: on amd64 and arm64 a pointer."""
    if level == _WARNINGS:
        _libc.vsnprintf(_line, c_size_t(_LONGEST), c_void_p(text), c_void_p(arguments))
        _printed.append(_line.value.decode("utf-8", "replace").rstrip())
    return 0


def printed() -> str:
    """Return the warnings that libbpf printed since the last call, a line each."""
    text = "\n".join(_printed)
    _printed.clear()
    return text


@functools.cache
def library() -> ctypes.CDLL:
    """Return libbpf with the types of its functions.

    Raises:
        Unsupported: it is not here.
    """
    found = _loaded()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.libbpf_set_print(_take)
    return found


def _loaded() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        problem = error
    machine = _MACHINES.get(platform.machine(), platform.machine())
    libraries = [BUILT / f"{name}-{machine}.so" for name in ("libelf", "libbpf")]
    if not all(path.exists() for path in libraries):
        raise Unsupported(
            f"libbpf cannot be loaded: {problem}, and none for {machine} came with this program",
            hint="on Debian, libbpf1 has it",
        )
    try:
        # libbpf finds the libelf that is loaded already, by its name (ld.so(8)).
        ctypes.CDLL(str(libraries[0]), ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(libraries[1]), use_errno=True)
    except OSError as error:
        raise Unsupported(
            f"libbpf cannot be loaded: {error}",
            hint="it needs glibc 2.33 or later and zlib: an image of Debian 12, not of Alpine",
        ) from None


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
