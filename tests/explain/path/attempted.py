"""Answers as if the newest attempt of the flow had another outcome, or another age."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path import endpoints
from kubectl_ebpfnet.model.path import Outcome


@contextmanager
def attempt(age: float | None, outcome: Outcome = Outcome.ANSWERED) -> Iterator[None]:
    """Within the block, the newest attempt that a table shows has this outcome and age."""
    resolve = endpoints.resolve

    def resolved(*args: Any) -> endpoints.PathEnds:
        ends = resolve(*args)
        if ends.attempt is None:
            return ends
        return replace(ends, attempt=replace(ends.attempt, outcome=outcome, age=age))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "resolve", resolved)
        yield
