"""The tests' own wire: its threads end with the test that began them, and fail no other."""

from __future__ import annotations

import socket
import time

import pytest

from tests.node.netkat.wire import PEER, Talk, Wire, answering, received, why_not, wire

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def broken(one: socket.socket) -> None:
    raise LookupError(f"told {received(one)!r}")


def test_a_peer_whose_client_never_comes_ends_with_its_wire() -> None:
    with wire() as made:
        silent: Talk = answering(made.listening(), broken)
        begun = time.monotonic()
    assert not silent.is_alive()
    assert silent.error is None
    assert time.monotonic() - begun < 10  # and not the deadline of accept


def meet(one: Wire) -> None:
    """A client says x to a peer that breaks, and the test goes on to its end."""
    peer = answering(one.listening(), broken)
    with one.socket("host") as client:
        client.connect((PEER[4], 80))
        client.sendall(b"x")
    peer.join(20)


def test_what_goes_wrong_in_a_peer_fails_its_own_test() -> None:
    made = wire()
    meet(made.__enter__())
    with pytest.raises(LookupError, match="told b'x'"):
        made.__exit__(None, None, None)
