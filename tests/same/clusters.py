"""The recorded clusters, what is in them, and the questions that were asked of them.

Captures are read here by docs/captures.md, not by the program, which is what is compared.
"""

from __future__ import annotations

import json
import re
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHECK = re.compile(r'"\$1" (path [^\n]*?) --from "\$here/bundle"')
_README = re.compile(r"kubectl ebpfnet (path [^\n$]*)$", re.MULTILINE)
_VERDICT = re.compile(r"^== \S+ \[(.*?)\] (?:agent|pod) rc=", re.MULTILINE)


@dataclass
class Cluster:
    """A recorded cluster.

    Attributes:
        name: how it is called in the report.
        place: what --from is given.
        asked: questions that its authors asked, as words without --from.
        pods, services, nodes: its objects, as the API server says them; of a node perhaps its name.
        seen: namespace and name of the pods that were asked themselves.
    """

    name: str
    place: str
    asked: list[list[str]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)


def clusters(checkout: Path, shared: Path | None) -> list[Cluster]:
    """All recorded clusters, in the order of their names.

    Args:
        checkout: its tests/scenarios are taken.
        shared: a folder with captures and cases, if there is one.
    """
    places: dict[Path, list[list[str]]] = {}
    for index in sorted(checkout.glob("tests/scenarios/*/bundle.json")):
        places[index.parent] = []
    if shared is not None:
        for folder in sorted(shared.glob("cases/*/bundle")):
            places[folder] = _found(_CHECK, folder.parent / "check.sh")
        for file in sorted(shared.glob("captures/*.jsonl")):
            places[file] = []
        for file in sorted(shared.glob("captures/**/*.zip")):
            places[file] = _asked_beside(file)
    roots = [root for root in (shared, checkout) if root is not None]
    return [read(place, _name(place, roots), asked) for place, asked in places.items()]


def _name(place: Path, roots: list[Path]) -> str:
    return next(str(place.relative_to(root)) for root in roots if place.is_relative_to(root))


def _found(pattern: re.Pattern[str], file: Path) -> list[list[str]]:
    return [shlex.split(words) for words in pattern.findall(file.read_text(encoding="utf-8"))]


def _asked_beside(capture: Path) -> list[list[str]]:
    readme, beside = capture.parent / "README.md", capture.parent / "beside.tar.xz"
    asked = _found(_README, readme) if readme.exists() else []
    if beside.exists():
        with tarfile.open(beside) as archive:
            file = archive.extractfile("beside/verdicts.txt")
            text = file.read().decode() if file is not None else ""
        asked += [["path", *shlex.split(words)] for words in _VERDICT.findall(text)]
    return list(map(list, dict.fromkeys(map(tuple, asked))))


def read(place: Path, name: str, asked: list[list[str]]) -> Cluster:
    found = Cluster(name, str(place), asked)
    lists = {"pods": found.pods, "services": found.services, "nodes": found.nodes}
    for where, argv, text in _records(place):
        if where["kind"] == "pod":
            found.seen.append((where["namespace"], where["pod"]))
        if where.get("node"):
            found.nodes.append({"metadata": {"name": where["node"]}})
        if where["kind"] == "api" and argv[:1] == ["get"] and argv[1] in lists and text:
            said = json.loads(text)
            lists[argv[1]].extend(said.get("items", [said]))
    for objects in lists.values():
        # What the API server says of a node has more than its name: the longest stays.
        said = sorted((one for one in objects if "metadata" in one), key=lambda one: len(str(one)))
        named = {_key(one): one for one in said}
        objects[:] = [named[key] for key in sorted(named)]
    found.seen = sorted(set(found.seen))
    return found


def _key(thing: dict[str, Any]) -> tuple[str, str]:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def _records(place: Path) -> Iterator[tuple[dict[str, str], list[str], str]]:
    """Where, what was asked, and what the API server said; "" for what others said."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            for record in json.loads(archive.read("bundle.json"))["records"]:
                names = record.get("stdout_file", []) if record["where"]["kind"] == "api" else []
                parts = [names] if isinstance(names, str) else names
                text = b"".join(archive.read(part) for part in parts).decode()
                yield record["where"], record["argv"], text
        return
    if place.is_dir():
        base = json.loads((place / "bundle.json").read_text(encoding="utf-8")).get("base")
        if base:
            yield from _records(place / base)
    for file in sorted(place.glob("*.jsonl")) if place.is_dir() else [place]:
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            yield record["where"], record["argv"], record.get("stdout", "")
