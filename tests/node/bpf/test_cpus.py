"""Lists of CPUs, of machines that are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_ebpfnet.node.bpf import maps


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 1), ("0-3\n", 4), ("0,2-3\n", 3), ("0-1,4-5,7\n", 5), ("2\n", 1), ("0-1023\n", 1024)],
)
def test_each_cpu_counts_once(
    text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "possible").write_text(text)
    monkeypatch.setattr(maps, "_POSSIBLE_CPUS", tmp_path / "possible")
    monkeypatch.setattr(maps, "_cpus", [])
    assert maps.possible_cpus() == count
    of = maps.MapInfo(6, 1, 4, 12, 8, 0, "counters")  # BPF_MAP_TYPE_PERCPU_ARRAY
    assert maps.value_bytes(of) == 16 * count
