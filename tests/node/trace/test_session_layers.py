"""How a session uses the second layer. The layers here are fakes: no program is loaded. The real
ones are in tests/kernels/test_second_layer.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.events import TraceLine
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import TraceRequest
from kubectl_ebpfnet.node.bpf.objects import Refused
from kubectl_ebpfnet.node.trace import session


class _Second:
    """Watches program 1, and refuses every other one."""

    def __init__(self) -> None:
        self.lacking: list[Refused] = []

    def watch(self, found: Iterable[Attachment]) -> list[Refused]:
        ids = {each.program_id for each in found}
        return [Refused(f"verdicts of program {each}", "no BTF") for each in ids - {1}]


def _told(of: session._Session) -> list[TraceLine]:
    return [codec.fact(line, TraceLine) for line in bytes(of._out).splitlines()]


@pytest.mark.parametrize("later", [1, 2])
def test_a_program_that_replaces_another_is_said_and_whether_it_is_seen(
    monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    watching = session._Session(TraceRequest())
    second = _Second()
    watching._second = second  # type: ignore[assignment]
    at = [Attachment("tcx/ingress", "eth0", "old", 3)]
    monkeypatch.setattr(session, "attached_now", lambda: at)
    watching._watch_programs()
    assert [each.program for each in second.lacking] == ["verdicts of program 3"]
    assert _told(watching) == []  # what is lacking from the beginning stands in the layers
    at[:] = [Attachment("tcx/ingress", "eth0", "new", later)]
    watching._watch_programs()
    unseen = [] if later == 1 else ["verdicts of program 2 are not seen (no BTF)"]
    said = "a BPF program at eth0 (tcx/ingress) was replaced"
    assert [line.changed for line in _told(watching)] == [*unseen, said]
