"""Hints at what a capture has."""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.in_capture import in_capture


def test_names_like_the_wanted_one_come_first_and_few_are_shown() -> None:
    names = [f"default/p{number}" for number in range(20)] + ["shop/web", "shop/web"]
    hint = in_capture("pods", names, "shop/wbe")
    assert hint.startswith("did you mean shop/web? pods in this capture: shop/web, default/p0, ")
    assert hint.count(",") == 7


def test_a_capture_without_any_says_so() -> None:
    assert in_capture("services", [], "default/web") == "this capture holds no services"
