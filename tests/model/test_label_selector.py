"""Label selectors as kubectl's -l takes them."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.label_selector import label_selector

LABELS = {"app": "web", "tier": "a", "k8s.io/x": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True), ("app=web", True), ("app==web", True), ("app=db", False), ("app!=db", True),
        ("app!=web", False), ("none!=x", True), ("app", True), ("none", False), ("!none", True),
        ("!app", False), ("tier in (a,b)", True), ("tier in (b, c)", False),
        ("tier notin (b)", True), ("none notin (b)", True), ("k8s.io/x=", True),
        ("app=web,tier=a", True), ("app=web, tier=b", False), (" app = web ", True),
        ("tier in (a, b),!none,app", True),
    ],
)  # fmt: skip
def test_a_selector_holds_or_not(text, holds):
    assert all(term.holds(LABELS) for term in label_selector(text)) is holds


@pytest.mark.parametrize(
    "text", ["a b", "=x", "a=(", "a in b", "a in (b", ",", "a=b;c", "-l", "a=b c"]
)
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(UsageError, match="unable to parse label selector"):
        label_selector(text)
