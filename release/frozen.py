"""The frozen program: a folder with an interpreter and everything that the client imports.

PyInstaller's onedir, since what unpacks itself at each start takes half a second (onefile), and
what needs the user's Python is no answer for a laptop without one. Runs in an environment that has
PyInstaller and the wheel of this version, and nothing else that could get in.
"""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from release.platforms import program_name

SPEC = Path(__file__).parent / "kubectl-ebpfnet.spec"
PACKAGE = "kubectl_ebpfnet"
NODE_SIDE = "kubectl_ebpfnet/node/"
EXCLUDES = (
    # Classes of each object and call of the API come beside these: 57 of kubernetes' 126 MB. This
    # client reads plain JSON by its REST pool.
    "kubernetes.aio", "kubernetes.dynamic", "kubernetes.informer", "kubernetes.leaderelection",
    "kubernetes.stream", "kubernetes.watch", "aiohttp",
    # The node side runs elsewhere, from its sources.
    "pyroute2", "kubectl_ebpfnet.node",
    "readline",  # GPL
    # What typer would draw with, switched off here.
    "rich", "pygments", "markdown_it",
    "_uuid", "lib2to3", "pip", "pydoc_data", "setuptools", "sqlite3", "test", "tkinter",
)  # fmt: skip
# PyInstaller's start imports it wherever it is, and on Windows alone somebody else does.
UNIX_EXCLUDES = ("ctypes", "_ctypes")
_CLASSES = ("kubernetes.client.api", "kubernetes.client.models")


@dataclass(frozen=True)
class Inside:
    """What a frozen program has in it."""

    modules: frozenset[str]
    """Dotted names, those of extension modules too."""
    libraries: frozenset[str]
    """File names of shared libraries that belong to no Python package."""

    def distributions(self) -> list[metadata.Distribution]:
        """Return what was installed of PyPI and is inside, with the sources of the node side."""
        owners = metadata.packages_distributions()
        tops = {name.partition(".")[0] for name in self.modules} | {"pyroute2"}
        names = sorted({owner for top in tops for owner in owners.get(top, ())}, key=str.lower)
        return [metadata.distribution(name) for name in names]


def freeze(work: Path, os_name: str, epoch: int) -> tuple[Path, Inside]:
    """Freeze the installed program.

    Args:
        work: folder for what is made on the way.
        os_name: of this platform, in Go's words.
        epoch: seconds since 1970, for what holds a time.

    Returns:
        The folder of the program, and what is in it.

    Raises:
        CalledProcessError: PyInstaller failed, or strip(1).
    """
    work.mkdir(parents=True, exist_ok=True)
    package = _installed()
    words = {
        "modules": _modules(package),
        "data": _data(package, work),
        "excludes": [*EXCLUDES, *(() if os_name == "windows" else UNIX_EXCLUDES), *_classes()],
        "programs": _programs(os_name),
        "inside": str(work / "inside.json"),
    }
    variables = {
        "EBPFNET_FREEZE": json.dumps(words),
        "PYTHONHASHSEED": "1",  # sets of names are written in their order
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYINSTALLER_CONFIG_DIR": str(work / "cache"),
    }
    if os_name != "windows":  # where each of two programs has all modules
        # To inflate them was a tenth of what a start takes; the archive is compressed as a whole.
        variables["PYINSTALLER_ZLIB_COMPRESSION_LEVEL"] = "0"
    argv = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level=WARN"]
    folders = [f"--distpath={work / 'frozen'}", f"--workpath={work / 'pyinstaller'}"]
    subprocess.run([*argv, *folders, str(SPEC)], check=True, env={**os.environ, **variables})
    made = work / "frozen/kubectl-ebpfnet"
    if os_name == "linux":
        # By strip(1) itself: PyInstaller's strips all, and breaks libssl's checks of itself.
        inside = made / "_internal"
        for library in sorted([*inside.glob("libpython*"), *inside.rglob("*.cpython-*.so")]):
            subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
    return made, _inside(work / "inside.json")


def _installed() -> Path:
    spec = util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed beside PyInstaller")
    return Path(spec.origin).parent


def _modules(package: Path) -> list[str]:
    # Commands, parsers and formats are imported by their names.
    files = (path.relative_to(package.parent) for path in package.rglob("*.py"))
    names = [file for file in sorted(files) if not file.as_posix().startswith(NODE_SIDE)]
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in names]


def _data(package: Path, work: Path) -> list[tuple[str, str]]:
    """Return pairs of a file and the folder that it stands in."""
    from kubectl_ebpfnet.model.protocol import node_side

    node_side.write(work / node_side.PACKED)
    data = []
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package.parent)
        code = path.suffix in (".py", ".pyc") or path.name == "py.typed"
        if path.is_file() and not code and not name.as_posix().startswith(NODE_SIDE):
            data.append((str(path), name.parent.as_posix()))
    return [*data, (str(work / node_side.PACKED), PACKAGE)]


def _classes() -> list[str]:
    packages = [util.find_spec(name) for name in _CLASSES]
    return [
        f"{spec.name}.{module.name}"
        for spec in packages
        if spec is not None
        for module in pkgutil.iter_modules(spec.submodule_search_locations)
    ]


def _programs(os_name: str) -> list[str]:
    # Elsewhere a script of two lines does, and a program less. Windows finds no script.
    names = ("kubectl-ebpfnet", "kubectl_complete-ebpfnet")
    return [*names] if os_name == "windows" else [*names[:1]]


def _inside(path: Path) -> Inside:
    found = json.loads(path.read_text())
    extensions = [name for name, _, kind in found["binaries"] if kind == "EXTENSION"]
    modules = [Path(name).as_posix().replace("/", ".") for name in extensions]
    libraries = [name for name, _, kind in found["binaries"] if kind != "EXTENSION"]
    return Inside(
        frozenset([*found["modules"], *modules]),
        frozenset(Path(name).name for name in libraries),
    )


def complete_folder(made: Path, os_name: str) -> None:
    """Add what answers kubectl's completion, where it is a script, and make the programs runnable.

    Args:
        made: the folder of the frozen program.
        os_name: of this platform, in Go's words.
    """
    if os_name != "windows":
        from kubectl_ebpfnet.cli.completion.install import ASKED, NAME

        (made / NAME).write_text(ASKED)
        for name in (NAME, program_name(os_name)):
            (made / name).chmod(0o755)
    links = [path for path in made.rglob("*") if path.is_symlink()]
    for link in links:  # krew unpacks none
        target = link.resolve()
        link.unlink()
        (shutil.copytree if target.is_dir() else shutil.copy2)(target, link)
