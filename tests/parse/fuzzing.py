"""Inputs for parsers, and what a parser owes whatever the bytes are: facts or a ParseError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from kubectl_ebpfnet.errors import ParseError

Parser = Callable[[bytes], Any]


def facts_of(parser: Parser, data: bytes) -> Any:
    """Parse; only a ParseError may come, and one that can be shown. Then there are no facts."""
    facts, problem = (), None
    try:
        facts = parser(data)
    except ParseError as error:
        problem = error
    str(facts).encode()
    if problem is not None:
        assert problem.source
        assert 0 <= problem.line <= data.count(b"\n") + 1
        assert len(str(problem)) < 400
        assert str(problem).replace("…", "").isprintable()
    return facts


@st.composite
def damaged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """A real output in which some pieces are changed, cut, repeated or moved."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        at = draw(st.integers(min_value=0, max_value=len(data)))
        end = min(len(data), at + draw(st.integers(min_value=0, max_value=30)))
        instead = draw(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"", b" ", b"\n", b"\n\n", b'"', b"-1", b"/", b":", b"!", b"{}"]),
                st.just(bytes(data[at:end]) * 2),
            )
        )
        data[at:end] = instead
    return bytes(data)


def documents(members: Sequence[str], words: Sequence[str]) -> st.SearchStrategy[Any]:
    """JSON objects, or lists of them, that have these members, and in them anything or these
    words."""
    names = st.sampled_from(members)
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(min_value=0, max_value=40),
        st.floats(), st.text(max_size=8), st.sampled_from(words),
    )  # fmt: skip
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=8),
        max_leaves=25,
    )
    item = st.dictionaries(names, values, max_size=12)
    return st.lists(item, max_size=4) | item
