"""plugin.yaml: what the template gives, and nothing that krew refuses."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_ebpfnet import __version__
from release import manifest
from release.__main__ import made_in
from release.platforms import PLATFORMS, archive_name
from tests.release import krew

ROOT = Path(__file__).parents[2]
FILE = ROOT / "plugin.yaml"


def read(text: str) -> Any:
    return yaml.safe_load(text)


def test_plugin_yaml_is_what_the_template_gives() -> None:
    made = [sys.executable, "-m", "release", "manifest"]
    said = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == FILE.read_text(encoding="utf-8"), "python -m release manifest > plugin.yaml"
    assert said == manifest.manifest(__version__, {})


def test_what_is_somebody_elses_in_the_folder_of_the_results_stays(tmp_path: Path) -> None:
    version = "0.0.1"
    ours = {archive_name(version, *each) for each in PLATFORMS}
    ours |= {f"{archive_name(version, 'linux', 'amd64')}.cdx.json", "plugin.yaml", "SHA256SUMS"}
    ours |= {"kubectl_ebpfnet-0.0.1-py3-none-any.whl", "kubectl_ebpfnet-0.0.1.tar.gz"}
    for name in (*ours, "thesis.tex", "kubectl-ebpfnet.notes"):
        (tmp_path / name).touch()
    assert {path.name for path in made_in(tmp_path)} == ours


def test_krew_takes_it() -> None:
    plugin = read(FILE.read_text(encoding="utf-8"))
    assert krew.faults(plugin) == []
    assert plugin["metadata"]["name"] == "ebpfnet"
    assert plugin["spec"]["version"] == f"v{__version__}"
    # validate-krew-manifest warns of longer lines.
    assert len(plugin["spec"]["shortDescription"]) <= 50
    for field in ("description", "caveats"):
        assert max(map(len, plugin["spec"][field].splitlines())) <= 80


def test_each_platform_is_selected_once() -> None:
    platforms = read(FILE.read_text(encoding="utf-8"))["spec"]["platforms"]
    for each in krew.PLATFORMS:
        (one,) = [p for p in platforms if krew.selects(p["selector"], *each)]
        assert one["uri"].endswith(f"/v{__version__}/{archive_name(__version__, *each)}")
        assert one["bin"] == "kubectl-ebpfnet" + (".exe" if each[0] == "windows" else "")
    assert len(platforms) == len(PLATFORMS) == 6


def test_what_was_not_built_is_marked_and_what_was_has_its_digest() -> None:
    built = archive_name(__version__, "linux", "arm64")
    text = manifest.manifest(__version__, {built: "ab" * 32})
    assert text.count("not built") == 5
    for platform, line in zip(
        read(text)["spec"]["platforms"],
        [line for line in text.splitlines() if "sha256" in line],
        strict=True,
    ):
        filled = platform["uri"].endswith(built)
        assert platform["sha256"] == ("ab" * 32 if filled else "0" * 64)
        assert ("not built" in line) is not filled


def change(name: str, value: object) -> Callable[[Any], None]:
    def do(plugin: Any) -> None:
        plugin["spec"]["platforms"][0][name] = value

    return do


BREAKS: dict[str, Callable[[Any], None]] = {
    "name": lambda plugin: plugin["metadata"].update(name="ebpf net"),
    "a device": lambda plugin: plugin["metadata"].update(name="NUL"),
    "no v": lambda plugin: plugin["spec"].update(version="0.1.0"),
    "no semver": lambda plugin: plugin["spec"].update(version="v0.1"),
    "two lines": lambda plugin: plugin["spec"].update(shortDescription="a\nb"),
    "no platform": lambda plugin: plugin["spec"].update(platforms=[]),
    "overlap": change("selector", {"matchLabels": {"os": "linux"}}),
    "label": change("selector", {"matchLabels": {"cpu": "fast"}}),
    "nothing": change("selector", {}),
    "unsupported": change("selector", {"matchLabels": {"os": "plan9"}}),
    "digest": change("sha256", "AB" * 32),
    "bin": change("bin", ""),
    "files": change("files", []),
    "exe": change("selector", {"matchLabels": {"os": "windows", "arch": "arm64"}}),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_krew_refuses_is_found(what: str) -> None:
    plugin = copy.deepcopy(read(FILE.read_text(encoding="utf-8")))
    BREAKS[what](plugin)
    assert krew.faults(plugin)
