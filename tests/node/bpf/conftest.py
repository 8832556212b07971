"""A network namespace and a bpffs of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.node.bpf import bpf_programs as made
from tests.node.bpf.hook_netns import Net


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def net(stack: ExitStack) -> Net:
    return Net.new(stack)


@pytest.fixture
def pins(stack: ExitStack, tmp_path: Path) -> Path:
    return made.bpffs(stack, tmp_path / "bpf")
