"""`python -m release dist|check|manifest`: needs Python alone, and PyPI for `dist` and `check`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

from release import manifest
from release.platforms import archive_name, this_platform

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "release/requirements.txt"
WORK = ROOT / "build/release"
DIST = ROOT / "dist"
SUMS = "SHA256SUMS"


def main() -> int:
    """Do what the words say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    doing = parser.add_subparsers(dest="command", required=True)
    dist = doing.add_parser("dist", help="make sdist, wheel, archive, SBOM, checksums, plugin.yaml")
    dist.add_argument("--work", type=Path, default=WORK, help="what is made on the way, and kept")
    dist.add_argument("--into", type=Path, default=DIST)
    doing.add_parser("check", help="make all of it in two other folders, and compare the bytes")
    rendered = doing.add_parser("manifest", help="print krew's manifest")
    rendered.add_argument("--archives", type=Path, help="the folder of those that are made")
    frozen = doing.add_parser("frozen")  # in the environment that `dist` made
    frozen.add_argument("--work", type=Path, required=True)
    frozen.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "manifest":
        digests = manifest.digests(given.archives) if given.archives else {}
        print(manifest.manifest(version(), digests), end="")
    elif given.command == "frozen":
        _frozen(given.work, given.into)
    elif given.command == "check":
        return _check()
    else:
        make(given.work.resolve(), given.into.resolve(), _epoch())
    return 0


def version() -> str:
    """Return the version that the sources say."""
    words: dict[str, str] = {}
    exec((ROOT / "kubectl_ebpfnet/__init__.py").read_text(encoding="utf-8"), words)
    return words["__version__"]


def make(work: Path, into: Path, epoch: int) -> None:
    """Make everything of this platform.

    Args:
        work: folder for an environment and what PyInstaller keeps.
        into: folder of the results.
        epoch: seconds since 1970, the time of everything in archives.

    Raises:
        CalledProcessError: a step failed.
    """
    from bpf import build, libraries
    from release import archive

    # The archive is frozen from this checkout: with what a wheel's build makes for itself.
    for problem in (build.build(), libraries.fetch()):
        if problem:
            print(f"warning: {problem}: the archive will have no trace", file=sys.stderr)
    python = _environment(work / "venv")
    sources = _sources(work / "sources")
    variables = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "1"}
    built = work / "built"
    shutil.rmtree(built, ignore_errors=True)
    # The wheel comes of the sdist, not of the checkout.
    _run([python, "-m", "build", "--outdir", built, sources], variables)
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    archive.repack(sdist, epoch)
    _run([python, *_PIP, "--no-deps", "--force-reinstall", wheel], {})
    into.mkdir(parents=True, exist_ok=True)
    for path in made_in(into):  # of an earlier version, or of another commit
        path.unlink()
    for path in (wheel, sdist):
        shutil.copy(path, into)
    _run([python, "-m", "release", "frozen", "--work", work, "--into", into], variables)
    text = manifest.manifest(version(), manifest.digests(into))
    (into / "plugin.yaml").write_text(text, encoding="utf-8")
    digests = manifest.digests(into)
    sums = [f"{digests[path.name]}  {path.name}\n" for path in made_in(into)]
    (into / SUMS).write_text("".join(sums), encoding="utf-8")
    for path in made_in(into):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")


def made_in(into: Path) -> list[Path]:
    """Return the files in a folder that `make` makes, of whatever version: --into may be any
    folder, and all else in it is somebody's."""
    patterns = ("kubectl-ebpfnet_v*", "kubectl_ebpfnet-*", "plugin.yaml", SUMS)
    return sorted(path for each in patterns for path in into.glob(each) if path.is_file())


_PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")


def _environment(folder: Path) -> Path:
    """Return the Python of an environment of REQUIREMENTS, which is made anew when that changed."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    stamp = folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        _run([python, *_PIP, "--requirement", REQUIREMENTS], {})
        stamp.write_text(wanted, encoding="utf-8")
    return python


def _sources(folder: Path) -> Path:
    """Copy what git tracks: a checkout's build/ and *.egg-info would get into a wheel."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = _output("git", "ls-files", "-z")
    kept = (
        "kubectl_ebpfnet/", "bpf/", "setup.py", "MANIFEST.in", "pyproject.toml", "README.md",
        "LICENSE", "CHANGELOG.md",
    )  # fmt: skip
    for name in listed.split("\0"):
        if name.startswith(kept) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def _epoch() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    return int(_output("git", "log", "-1", "--format=%ct"))


def _frozen(work: Path, into: Path) -> None:
    from release import archive, frozen, licenses, sbom

    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    os_name, arch = this_platform()
    made, inside = frozen.freeze(work, os_name, epoch)
    frozen.complete_folder(made, os_name)
    parts = licenses.write(inside, made)
    path = into / archive_name(version(), os_name, arch)
    archive.pack(made, path, epoch)
    sbom.write(path, manifest.digests(into)[path.name], version(), parts, epoch)


def _check() -> int:
    """Make everything twice, in folders of other names, and compare."""
    made = []
    with tempfile.TemporaryDirectory(prefix="ebpfnet-") as one:
        folders = (Path(one) / "one", Path(one) / "the other" / "deeper")
        for folder in folders:  # before anything is made: this checkout may go on
            _run(["git", "clone", "--quiet", ROOT, folder / "checkout"], {})
        variables = {"SOURCE_DATE_EPOCH": str(_epoch())}
        for folder in folders:
            argv = [sys.executable, "-m", "release", "dist", "--work", folder / "work"]
            _run([*argv, "--into", folder / "dist"], variables, folder / "checkout")
            made.append(manifest.digests(folder / "dist"))
    differ = sorted(name for name in {*made[0], *made[1]} if made[0].get(name) != made[1].get(name))
    print(f"{len(made[0])} files, {'differ: ' + ', '.join(differ) if differ else 'the same bytes'}")
    return 1 if differ or not made[0] else 0


def _run(argv: list[object], variables: Mapping[str, str], cwd: Path = ROOT) -> None:
    words = [str(word) for word in argv]
    subprocess.run(words, check=True, cwd=cwd, env={**os.environ, **variables})


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
