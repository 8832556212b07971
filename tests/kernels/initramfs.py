"""What a kernel of ours boots into: this machine's Python, our package, a few tools, modules.

An initramfs is a cpio archive in the "newc" format (Linux
Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed: unpacking it
takes longer than copying it.
"""

from __future__ import annotations

import importlib.util
import lzma
import os
import platform
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyroute2

import kubectl_ebpfnet
from tests.kernels.debian import Kernel, Unavailable
from tests.kernels.inside import init

HERE = Path(__file__).parent
TOOLS = ("ip", "tc", "nft", "iptables", "ip6tables", "iptables-save", "ip6tables-save")
_SITE = "/site"
_UNUSED = frozenset(
    ("test", "idlelib", "tkinter", "ensurepip", "lib2to3", "site-packages", "dist-packages",
     "turtledemo", "pydoc_data", "venv", "distutils", "__pycache__")
)  # fmt: skip
"""Folders of Python's library that nothing in a virtual machine imports, by name."""
MODULE_LIST = "/modules"
"""Names the files of the modules in the order in which they are loaded, one a line."""


class Archive:
    """A cpio archive in the making; folders and shared libraries come with what needs them."""

    def __init__(self) -> None:
        """Begin an empty archive."""
        self._parts: list[bytes] = []
        self._there: set[str] = set()

    def add(self, path: str, data: bytes, mode: int = 0o644, time: int = 0) -> None:
        """Add a file and the folders above it; a path that is there already is left as it is.

        Args:
            path: where.
            data: its content.
            mode: its permissions.
            time: of its last change, in seconds since 1970.
        """
        if path in self._there:
            return
        for folder in reversed(Path(path).parents):
            if str(folder) != "/" and str(folder) not in self._there:
                self._entry(str(folder), b"", stat.S_IFDIR | 0o755)
        self._entry(path, data, stat.S_IFREG | mode, time)

    def add_programs(self, programs: Mapping[str, str]) -> None:
        """Add programs or libraries of this machine, and the libraries that they are linked with.

        Args:
            programs: the file here, by where it is to be.
        """
        argv = ("ldd", *dict.fromkeys(programs.values()))
        linked = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        libraries = {file: file for file in re.findall(r"(/\S+) \(0x", linked)}
        for at, file in (programs | libraries).items():
            self.add(at, Path(file).read_bytes(), 0o755)

    def add_python(self, top: Path, at: str) -> None:
        """Add a folder's Python modules, compiled.

        What is compiled already is taken as it is: it is valid by the time of its source's change.
        """
        libraries = {}
        for folder, below, names in os.walk(top):
            below[:] = sorted(set(below) - _UNUSED)
            for name in sorted(names):
                path = Path(folder, name)
                where = f"{at}/{path.relative_to(top)}"
                if path.suffix == ".so" and not name.startswith("_tkinter"):
                    libraries[where] = str(path)
                elif path.suffix == ".py":
                    self._add_source(path, where)
        self.add_programs(libraries)

    def _add_source(self, path: Path, at: str) -> None:
        self.add(at, path.read_bytes(), time=int(path.stat().st_mtime))
        compiled = Path(importlib.util.cache_from_source(str(path)))
        if not compiled.exists() or compiled.stat().st_mtime < path.stat().st_mtime:
            with tempfile.TemporaryDirectory() as folder:
                made = py_compile.compile(str(path), f"{folder}/made", at, doraise=True)
                data = Path(str(made)).read_bytes()
        else:
            data = compiled.read_bytes()
        self.add(f"{Path(at).parent}/__pycache__/{compiled.name}", data)

    def bytes(self) -> bytes:
        """The archive."""
        self._entry("TRAILER!!!", b"", 0)
        return b"".join(self._parts)

    def _entry(self, path: str, data: bytes, mode: int, time: int = 0) -> None:
        self._there.add(path)
        name = path.lstrip("/").encode() + b"\0"
        fields = (len(self._there), mode, 0, 0, 1, time, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]


def build(
    kernel: Kernel, wanted: Iterable[str], checks: Iterable[str], files: Mapping[str, bytes]
) -> bytes:
    """Return the initramfs of a kernel.

    Args:
        kernel: whose modules are taken.
        wanted: modules by name; one that the kernel lacks, or has built in, is passed over.
        checks: Python's modules of checks by name.
        files: contents of other files, by path.

    Raises:
        Unavailable: a tool is missing on this machine.
    """
    archive = Archive()
    python = str(Path(sys.executable).resolve())
    programs = {python: python}
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is None:
            raise Unavailable(f"no {tool} on this machine")
        programs[f"/bin/{tool}"] = found
    # iptables loads its matches and targets by name.
    extensions = Path(f"/usr/lib/{platform.machine()}-linux-gnu/xtables").glob("lib*.so")
    bpf = Path(f"/usr/lib/{platform.machine()}-linux-gnu").glob("libbpf.so.1")
    libraries = [*extensions, *bpf]
    archive.add_programs(programs | {str(file): str(file) for file in libraries})
    library = sysconfig.get_path("stdlib")
    archive.add_python(Path(library), library)
    archive.add_python(_folder_of(pyroute2), f"{_SITE}/pyroute2")
    archive.add_python(_folder_of(kubectl_ebpfnet), f"{_SITE}/kubectl_ebpfnet")
    archive.add_python(HERE / "inside", f"{_SITE}/tests/kernels/inside")
    modules = []
    for name, data in _with_dependencies(kernel, wanted):
        modules.append(f"/lib/modules/{name}.ko")
        archive.add(modules[-1], data)
    archive.add(MODULE_LIST, "\n".join(modules).encode())
    archive.add(init.CHECK_LIST, "\n".join(checks).encode())
    for at, data in files.items():
        archive.add(at, data)
    start = f"#!{python} -ESB\nimport sys\nsys.path.append({_SITE!r})\n"
    start += "from tests.kernels.inside import init\ninit.run()\n"
    archive.add("/init", start.encode(), 0o755)
    return archive.bytes()


def _folder_of(package: object) -> Path:
    return Path(str(package.__file__)).parent  # type: ignore[attr-defined]


def _with_dependencies(kernel: Kernel, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield modules, each behind those that it needs: its .modinfo section names them."""
    loaded: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        file = kernel.modules.get(name)
        if name in loaded or file is None:
            return
        loaded.add(name)
        data = file.read_bytes()
        data = lzma.decompress(data) if file.suffix == ".xz" else data
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in needs[1].decode().split(",") if needs else ():
            yield from load(needed.replace("-", "_"))
        yield name, data

    for each in wanted:
        yield from load(each)
