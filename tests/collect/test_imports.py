"""What `path` imports before the API server is asked: the classes of answers are made meanwhile."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTED = """
import sys
import kubectl_ebpfnet.cli.commands.path
import kubectl_ebpfnet.collect.gatherer
import kubectl_ebpfnet.collect.path
print(*sys.modules)
"""


@pytest.mark.parametrize(
    "later",
    [
        "kubectl_ebpfnet.model.cilium",
        "kubectl_ebpfnet.model.cilium_ct",
        "kubectl_ebpfnet.model.kernel",
        "kubectl_ebpfnet.model.path",
        "kubectl_ebpfnet.capture.zip",
        "kubectl_ebpfnet.explain",
    ],
)
def test_what_only_answers_need_is_imported_later(later: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    assert "kubectl_ebpfnet.collect.gatherer" in done.stdout.split()
    assert later not in done.stdout.split()
