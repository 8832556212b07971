"""The three namespaces, for each test anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.netkat import wire as kat_wire


@pytest.fixture
def wire() -> Iterator[kat_wire.Wire]:
    """Namespaces of this test's own."""
    if why := kat_wire.why_not():
        pytest.skip(why)
    with kat_wire.wire() as made:
        yield made
