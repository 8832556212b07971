"""Entries that were left out at the node are said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.flows.notes import notes
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from tests.explain.flows.test_listing import EVERYTHING
from tests.explain.path.node_pod_bundle import bundle


@pytest.mark.parametrize(
    ("older", "beside", "said"),
    [
        (0, 0, "no entry"),
        (1234, 0, "1,234 older entries of this tuple are not shown"),
        (0, 59_500, "59,500 entries of other flows are not shown"),
        (7, 9, "7 older entries of this tuple and 9 entries of other flows are not shown"),
    ],
)
def test_what_was_left_out_is_a_note(older: int, beside: int, said: str) -> None:
    cut = replace(EVERYTHING[0], left_out=older, beside_left_out=beside)
    node = ClusterView(bundle(cut, *EVERYTHING[1:])).node("n1")
    (note,) = (note for note in notes(node, ()) if note.table == "cilium-ct")
    assert note.text.endswith(said)


@pytest.mark.parametrize(
    ("older", "beside", "said"),
    [
        (0, 0, "entries were looked up for the connections alone that conntrack shows"),
        (0, 60, "entries were looked up for the connections alone that conntrack shows"),
        (7, 9, "about 7 older entries of this tuple and about 9 entries of other flows are not"),
    ],
)
def test_what_was_estimated_is_said_to_be(older: int, beside: int, said: str) -> None:
    cut = replace(EVERYTHING[0], left_out=older, beside_left_out=beside, about=True)
    node = ClusterView(bundle(cut, *EVERYTHING[1:])).node("n1")
    (note,) = (note for note in notes(node, ()) if note.table == "cilium-ct")
    assert said in note.text
