"""Where the cgroup v2 hierarchy is looked for: mountinfo also lists mounts that others hide."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import cgroups
from kubectl_ebpfnet.node.host.mounts import Mount


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """Three mounts that mountinfo lists, and the paths at which cgroups are to be seen."""
    listed = [Mount("0:1", "/", tmp_path / name) for name in ("hidden", "a", "b")]
    for mount in listed:
        mount.path.mkdir()
    visible = {str(tmp_path / "a"), str(tmp_path / "b")}
    monkeypatch.setattr(cgroups.mounts, "of_first_process", lambda _: listed)
    monkeypatch.setattr(cgroups.mounts, "own", lambda _: [])
    monkeypatch.setattr(cgroups, "is_cgroup2", lambda path: str(path) in visible)
    return visible


def test_a_mount_that_another_one_hides_is_passed_over(mounted: set[str], tmp_path: Path) -> None:
    assert cgroups.hierarchy_root() == tmp_path / "a"
    mounted.discard(str(tmp_path / "a"))
    assert cgroups.hierarchy_root() == tmp_path / "b"
    mounted.clear()
    with pytest.raises(KernelError, match="no cgroup v2"):
        cgroups.hierarchy_root()


def test_what_is_no_cgroup_file_system(tmp_path: Path) -> None:
    assert not cgroups.is_cgroup2(tmp_path)
    assert not cgroups.is_cgroup2(Path("/proc"))
    with pytest.raises(FileNotFoundError):
        cgroups.is_cgroup2(tmp_path / "gone")
