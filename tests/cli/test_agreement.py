"""Whether a command that only reads may deploy: asked once, and never taken for granted."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.cli import agreement as module
from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.terminal import Progress


@pytest.mark.parametrize(
    ("answer", "why"), [(True, ""), (False, "not wanted"), (None, "no terminal to ask on; --yes")]
)
def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch, answer: bool | None, why: str) -> None:
    asked: list[str] = []

    def confirmed(question: str) -> bool | None:
        asked.append(question)
        return answer

    monkeypatch.setattr(module, "confirmed", confirmed)
    ask = agreement(Progress(), "--yes")
    first, second = ask("deploy a node pod on n1?"), ask("deploy one on n2?")
    assert first == second
    assert first.endswith(why)
    assert (first == "") == (answer is True)
    assert asked == ["Deploy a node pod on n1?"]
