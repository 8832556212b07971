"""What a table that was cut at the node still tells."""

from __future__ import annotations

from ipaddress import ip_address

from kubectl_ebpfnet.model.evidence import Record, agent_place
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

POD, PEER, OTHER = (ip_address(text) for text in ("10.0.0.1", "192.0.2.1", "192.0.2.2"))
OWN = (FlowFilter(POD, None, PEER, 80, TCP),)


def test_a_table_lacks_what_was_left_out() -> None:
    asked, other = Flow(TCP, POD, 4000, PEER, 80), Flow(TCP, POD, 4000, OTHER, 80)

    def record(left_out: int, beside: int, *, about: bool = False) -> Record:
        return Record(
            0, agent_place("n1"), ("x",), 0, line_filter=("10.0.0.1",), left_out=left_out,
            beside_left_out=beside, about=about, flows=OWN,
        )  # fmt: skip

    assert record(0, 0).has_all(asked, other)
    assert record(0, 9).has_all(asked)
    assert record(0, 9).has_all(asked.reversed())
    assert not record(0, 9).has_all(other)
    assert not record(0, 9).has_all(asked, other)
    assert not record(1, 0).has_all(asked)
    assert not record(0, 0, about=True).has_all(asked)  # only some were looked up
