"""python -m tests.same [PART …]: shows what this checkout answers otherwise than commit OLD.

With a PART, only clusters are asked whose name has it, e.g. faults, v27, scenarios. SINCE=COMMIT
takes another old commit. Exit code 1 when an answer differs. All differences, with their places,
stand in build/same.txt.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.metadata
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.same import answer, questions
from tests.same.clusters import Cluster, clusters
from tests.same.differences import Answer, Difference, differences, kind

OLD = os.environ.get("SINCE") or "0035b72"
HERE = Path(__file__).parent.parent.parent
REPORT = HERE / "build" / "same.txt"
SHOWN, PLACES = 40, 2
"""How many kinds of difference the terminal shows, and how many more places of each."""
SECONDS = 1800

Asked = tuple[str, list[str]]
"""The name of a recorded cluster and the words of a question."""
Found = dict[tuple[str, ...], list[tuple[str, Difference]]]
"""Kind of difference → each place of it, and the difference there."""


@contextlib.contextmanager
def _old_tree(folder: Path) -> Iterator[Path]:
    """Commit OLD in a git worktree, taken away at the end."""
    tree = folder / f"tree-{OLD}-{folder.name}"  # git names a worktree by its last part
    _git("worktree", "prune")  # of what a killed run left, once its folder is gone
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # a git that is killed leaves half a tree
    _git("worktree", "add", "--quiet", "--detach", str(tree), OLD)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(HERE), *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"git {shlex.join(words)} failed; `make same` needs a clone with {OLD}")
    return run.stdout.strip()


def _shared() -> Path | None:
    """../shared beside the checkout, or beside the one that this worktree belongs to."""
    git_folder = HERE / _git("rev-parse", "--git-common-dir")
    places = [HERE.parent / "shared", git_folder.resolve().parent.parent / "shared"]
    return next((place for place in places if (place / "captures").is_dir()), None)


def _missing_dependencies(old: Path, folder: Path) -> str:
    """Install what OLD needs and this checkout needs no longer; the folder, "" for nothing."""
    project = tomllib.loads((old / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = [one for one in project["dependencies"] if not _is_installed(one)]
    if not missing:
        return ""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *missing]
    subprocess.run(pip, check=True)
    return str(folder)


def _is_installed(requirement: str) -> bool:
    name = re.match(r"[\w.-]+", requirement)
    try:
        importlib.metadata.version(name[0] if name else requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _asked(found: list[Cluster]) -> list[Asked]:
    turn = itertools.count()
    asked = [("no cluster", words) for words in questions.without_cluster()]
    for cluster in found:
        asked += [(cluster.name, words) for words in questions.about(cluster, turn)]
    return asked


def _answering(
    tree: Path, work: Path, name: str, seed: int, libraries: str
) -> subprocess.Popen[bytes]:
    """A process that answers questions.json with a tree's program.

    Args:
        tree: a checkout.
        work: a folder, with questions.json; the answers become NAME.jsonl there.
        name: of the tree.
        seed: of hashes. Each tree has another, so that an order by chance shows itself.
        libraries: a folder with more packages, or "".
    """
    # Nothing of the machine: no cluster, no home, no terminal, no variable of the user's.
    environment = {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent/config",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": str(seed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": libraries,
    }
    words = [sys.executable, str(answer.__file__), str(tree), "questions.json", f"{name}.jsonl"]
    return subprocess.Popen(words, cwd=work, env=environment, stdin=subprocess.DEVNULL)


def _answers(work: Path, asked: list[Asked]) -> Iterator[tuple[Answer, Answer]]:
    """The answers of both trees, question by question."""
    (work / "questions.json").write_text(json.dumps([words for _, words in asked]))
    with _old_tree(work) as old:
        libraries = _missing_dependencies(old, work / "libraries")
        processes = {
            "old": _answering(old, work, "old", 1, libraries),
            "new": _answering(HERE, work, "new", 2, ""),
        }
        try:
            for name, process in processes.items():
                if process.wait(SECONDS):
                    raise SystemExit(f"the {name} tree ended with {process.returncode}")
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    with (work / "old.jsonl").open() as olds, (work / "new.jsonl").open() as news:
        for before, after in zip(olds, news, strict=True):
            yield json.loads(before), json.loads(after)


def main(parts: list[str]) -> int:
    """Ask, compare, report; of all clusters, or of those whose name has one of the parts."""
    begun = time.monotonic()
    shared = _shared()
    recorded = clusters(HERE, shared)
    if parts:
        recorded = [one for one in recorded if any(part in one.name for part in parts)]
    asked = _asked(recorded)
    print(f"{len(asked)} questions about {len(recorded)} recorded clusters", flush=True)
    if shared is None:
        print("no ../shared beside the checkout: only the tests' scenarios were asked")
    differ, codes, found = 0, collections.Counter[int](), Found()
    with tempfile.TemporaryDirectory(prefix="ebpfnet-same-") as work:
        for (name, words), (old, new) in zip(asked, _answers(Path(work), asked), strict=True):
            codes[old[0]] += 1
            here = differences(old, new) if old != new else []
            differ += bool(here)
            for one in here:
                place = f"{name}: {shlex.join(words)}"
                found.setdefault(kind(one), []).append((place, one))
    _report(found)
    print("exit codes: " + ", ".join(f"{code}: {n}" for code, n in sorted(codes.items())))
    print(f"{len(asked) - differ} answers the same, {differ} differ", end=" ")
    print(f"({time.monotonic() - begun:.0f} s)")
    return 1 if differ else 0


def _report(found: Found) -> None:
    """Every kind of difference with its first on the terminal, all of them into REPORT."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("".join(_shown(one) for places in found.values() for one in places))
    # What JSON says is what the texts say too, without the widths of columns.
    kinds = sorted(found, key=lambda one: not one[0].startswith("$"))
    for one in kinds[:SHOWN]:
        print(_shown(found[one][0]) + _others(found[one][1:]))
    if len(found) > SHOWN:
        print(f"… and {len(found) - SHOWN} other kinds of difference")
    if found:
        print(f"all differences: {REPORT}")


def _shown(found: tuple[str, Difference]) -> str:
    place, one = found
    return f"{place}\n  {one.where}\n  - {one.old}\n  + {one.new}\n"


def _others(places: list[tuple[str, Difference]]) -> str:
    if not places:
        return ""
    names = list(dict.fromkeys(place for place, _ in places))
    lines = [f"  also {place}" for place in names[:PLACES]]
    return "\n".join([*lines, f"  … {len(places)} more of this kind, in {len(names)} answers\n"])


def _end(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # the worktree is taken away then too
    sys.exit(main(sys.argv[1:]))
