"""The release workflow builds each platform that krew's manifest names, and runs what is there.

It cannot be run here; actionlint and zizmor looked at it once (its head says what they said).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from release.__main__ import version
from release.platforms import PLATFORMS, archive_name

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".github/workflows/release.yml"


def workflow() -> Any:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_each_platform_is_built_on_a_machine_of_its_own() -> None:
    jobs = workflow()["jobs"]
    built = {f"linux-{each['arch']}" for each in jobs["linux"]["strategy"]["matrix"]["include"]}
    built |= {each["name"] for each in jobs["others"]["strategy"]["matrix"]["include"]}
    assert built == {"-".join(each) for each in PLATFORMS}
    images = [each["image"] for each in jobs["linux"]["strategy"]["matrix"]["include"]]
    assert all("manylinux_2_28" in image for image in images)


def test_nothing_is_published_before_all_is_made() -> None:
    document = workflow()
    assert document[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert document["permissions"] == {"contents": "read"}
    assert set(document["jobs"]["publish"]["needs"]) == {"linux", "others", "image"}
    for name in ("linux", "others", "image"):
        assert document["jobs"][name]["needs"] == "version"


def test_a_manifest_with_digests_that_are_missing_is_not_published(tmp_path: Path) -> None:
    """The step as the runner runs it (bash -e), with the archive of one platform alone."""
    steps = workflow()["jobs"]["publish"]["steps"]
    (text,) = (step["run"] for step in steps if "ebpfnet.yaml" in step.get("run", ""))
    for name in ("release", "plugin.yaml", "kubectl_ebpfnet"):
        (tmp_path / name).symlink_to(ROOT / name)
    linux = tmp_path / "made/linux-amd64"
    linux.mkdir(parents=True)
    for name in (archive_name(version(), "linux", "amd64"), "a.whl", "kubectl_ebpfnet-0.tar.gz"):
        (linux / name).touch()
    done = subprocess.run(
        ["bash", "-e", "-c", text], cwd=tmp_path, capture_output=True, check=False
    )
    assert b"not built" in done.stdout, done.stderr
    assert done.returncode == 1


def test_the_commands_that_it_runs_are_there() -> None:
    text = FILE.read_text(encoding="utf-8")
    argv = [sys.executable, "-m", "release", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    commands = set(re.findall(r"-m release (\w+)", text))
    assert commands == {"dist", "manifest"}
    assert all(command in done.stdout for command in commands)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+) [A-Z]", text)) <= targets
