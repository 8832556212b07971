"""The node pod's image, made here from image/Dockerfile without Docker.

The instructions are carried out in turn (dockerfile.py reads them): FROM is debootstrap, RUN is
chroot(2) into the tree made so far, in namespaces of its own. So the lab runs the image that users
get, and its steps cannot drift from the Dockerfile's.

Two layers. What comes before the last COPY (Debian, Python, pyroute2) is made once and kept in the
lab's cache under a hash of its steps and files. The rest is our own wheel: made anew each time, on
an overlay over the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kubectl_ebpfnet import __version__
from tests.lab.cluster.build import say
from tests.lab.cluster.config import CACHE, HERE
from tests.lab.cluster.image import debian
from tests.lab.cluster.image.chroot import Tree, matching, pack
from tests.lab.cluster.image.dockerfile import Instruction, expanded, read
from tests.lab.cluster.image.images import archive
from tests.lab.cluster.processes import run

ROOT = HERE.parents[2]
DOCKERFILE = ROOT / "image/Dockerfile"
REQUIREMENTS = ROOT / "image/requirements.txt"
NAME = f"ghcr.io/kubectl-ebpfnet/node:{__version__}"
ACTIONS = ("FROM", "RUN", "COPY")
"""Kinds of instructions that make files; the others set something."""
RECIPE = 1
"""Raised when this file changes what comes out, so that what is cached is not used."""


@dataclass(slots=True)
class Settings:
    """What the instructions have set so far: the image's config."""

    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def take(self, one: Instruction, args: dict[str, str]) -> None:
        """Carry out an instruction that only sets something."""
        values = {**self.args, **self.env}
        if one.kind == "ENV":
            self.env |= one.pairs(values)
        elif one.kind == "LABEL":
            self.labels |= one.pairs(values)
        elif one.kind == "ARG":
            name, _, default = one.text.partition("=")
            self.args[name] = args.get(name, default)
        elif one.kind == "WORKDIR":
            self.folder = expanded(one.text, values)
        elif one.kind == "USER":
            self.user = one.text
        elif one.kind == "ENTRYPOINT":
            self.entrypoint = one.words()
        elif one.kind == "CMD":
            self.command = one.words()
        else:
            raise ValueError(f"line {one.line}: {one.kind} is not carried out here")

    def config(self) -> dict[str, object]:
        """As the image's config has it (OCI image specification, `config`)."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "Env": [path, *(f"{key}={value}" for key, value in self.env.items())],
            "Labels": self.labels,
            "WorkingDir": self.folder,
            "User": self.user,
            "Entrypoint": list(self.entrypoint),
            **({"Cmd": list(self.command)} if self.command else {}),
        }


def parts() -> tuple[tuple[Instruction, ...], tuple[Instruction, ...]]:
    """The Dockerfile's instructions before its last COPY, which are cached, and from there on."""
    found = read(DOCKERFILE.read_text())
    last = max(number for number, one in enumerate(found) if one.kind == "COPY")
    return found[:last], found[last:]


def base() -> Path:
    """The cached folder of the first layer: `root`, and `layer.tar`. Made if it is not there.

    Raises:
        RuntimeError: a step failed; its words tell.
    """
    before, _ = parts()
    wheels = context()
    folder = CACHE / f"node-image-{_key(before, wheels)}"
    if (folder / "layer.tar").exists():
        return folder
    with _alone("node-image.lock"):
        if not (folder / "layer.tar").exists():
            _make_base(folder, before, wheels)
    return folder


def _make_base(folder: Path, before: Sequence[Instruction], context: Path) -> None:
    begun = time.monotonic()
    say("making the node image's base, once a machine (about a minute)")
    for old in sorted(CACHE.glob("node-image-*"), key=os.path.getmtime)[:-1]:
        shutil.rmtree(old)
    root = folder / "root"
    _carry_out(before, Tree(root), context, {})
    new = folder / "layer.new"
    run(["tar", "--create", f"--file={new}", f"--directory={root}", "--sort=name",
         "--numeric-owner", "--exclude=./dev/*", "."])  # fmt: skip
    new.rename(folder / "layer.tar")
    say(f"made the node image's base in {time.monotonic() - begun:.0f} s")


def build(folder: Path) -> Path:
    """Make the image from this checkout: a docker-archive in a folder; its path.

    Raises:
        RuntimeError: a step failed; its words tell.
    """
    below = base()
    before, rest = parts()
    settings = Settings()
    for one in before:
        if one.kind not in ACTIONS:
            settings.take(one, {})
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the archive: an overlay's upper folder cannot lie on another overlay.
    with _alone("node-layer.lock"), tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        (work / "context").mkdir()
        wheel(work / "context")
        tree = Tree(work / "tree", below / "root")
        args = {"VERSION": __version__, "REVISION": _revision()}
        _carry_out(rest, tree, work / "context", args, settings)
        pack(tree.upper, work / "layer.tar")
        layers = [below / "layer.tar", work / "layer.tar"]
        return archive(folder / "node.tar", NAME, layers, settings.config())


def fingerprint() -> str:
    """A hash of what of this checkout makes the image."""
    digest = hashlib.sha256()
    for file in (DOCKERFILE, REQUIREMENTS, *_package()):
        data = file.read_bytes()
        digest.update(f"{file.relative_to(ROOT)} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _revision() -> str:
    """The commit of this checkout, "" where there is none."""
    argv = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def _carry_out(
    steps: Sequence[Instruction],
    tree: Tree,
    context: Path,
    args: dict[str, str],
    settings: Settings | None = None,
) -> None:
    """Carry instructions out, in order."""
    settings = settings or Settings()
    for one in steps:
        if one.kind == "FROM":
            debian.install(one.text, tree.root)
        elif one.kind == "RUN":
            tree.run(one.text, {**settings.args, **settings.env}, settings.folder)
        elif one.kind == "COPY":
            tree.copy(context, one.words())
        else:
            settings.take(one, args)


def wheel(folder: Path) -> Path:
    """A wheel of this checkout: the package's files and its metadata, zipped.

    Not by a build back end, which takes seconds and a network; `make image` uses the real one.
    """
    path = folder / f"kubectl_ebpfnet-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for file in _package():
            out.write(file, str(file.relative_to(ROOT)))
        out.writestr(
            f"kubectl_ebpfnet-{__version__}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: kubectl-ebpfnet\nVersion: {__version__}\n",
        )
    return path


def _package() -> Iterator[Path]:
    for file in sorted((ROOT / "kubectl_ebpfnet").rglob("*")):
        if file.is_file() and stat.S_ISREG(file.lstat().st_mode) and file.suffix != ".pyc":
            yield file


def context() -> Path:
    """A folder with the wheels from PyPI that the Dockerfile copies; downloaded once."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"node-wheels-{wanted}"
    if not folder.exists():
        new = CACHE / f"node-wheels-{wanted}.{os.getpid()}"
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
             "--only-binary=:all:", f"--requirement={REQUIREMENTS}", f"--dest={new}"])  # fmt: skip
        new.rename(folder)
    return folder


def _key(steps: Sequence[Instruction], context: Path) -> str:
    """A hash of what steps do: their words, the files they copy, and how this file does it."""
    digest = hashlib.sha256(f"{RECIPE} {debian.RECIPE} {os.uname().machine}".encode())
    for one in steps:
        digest.update(f"\n{one.kind} {one.text}".encode())
        if one.kind == "COPY":
            for file in matching(context, one.words()[:-1]):
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One at a time on a machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
