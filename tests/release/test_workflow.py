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

from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE
from release.__main__ import version
from release.platforms import PLATFORMS, archive_name

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".github/workflows/release.yml"
PUBLISHES = r"secrets\.|github\.token|--push|\blogin\b|skopeo|gh release|attest-build"


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
    jobs = document["jobs"]
    assert document[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert document["permissions"] == {"contents": "read"}
    assert set(jobs.pop("publish")["needs"]) == {"linux", "others", "image"}
    assert {*jobs} == {"linux", "others", "image", "version"}
    for name, job in jobs.items():
        # No rights and no secret: nothing could leave the runner.
        assert job.get("permissions", {}) == {}, name
        assert not re.search(PUBLISHES, yaml.safe_dump(job)), name
        assert name == "version" or job["needs"] == "version"


def test_what_publishes_stands_behind_the_check_of_all_digests() -> None:
    steps = [yaml.safe_dump(step) for step in workflow()["jobs"]["publish"]["steps"]]
    checks = [place for place, step in enumerate(steps) if "not built" in step]
    publishing = [place for place, step in enumerate(steps) if re.search(PUBLISHES, step)]
    assert len(checks) == 1
    assert len(publishing) == 3  # the image, its and the archives' provenance, the release
    assert min(publishing) > checks[0]


def test_the_image_that_is_pushed_is_the_one_that_node_pods_name() -> None:
    text = FILE.read_text(encoding="utf-8")
    (pushed,) = re.findall(r"docker://(\S+?):", text)
    assert pushed == DEFAULT_IMAGE.partition(":")[0]
    (made,) = re.findall(r"dest=(dist/\S+)", text)
    (uploaded,) = re.findall(r"path: (dist/\S+\.tar)$", text, re.MULTILINE)
    assert made == uploaded
    assert f"oci-archive:made/image/{Path(made).name}" in text


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
