"""IPsec between two nodes, healthy and broken: ESP in tunnel mode, one state for each direction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kernels.inside import world

SPI = 3
_KEYS = tuple(os.urandom(36).hex() for _ in range(2))
"""Of rfc4106(gcm(aes)): a key of 32 bytes and a salt of 4."""


@contextmanager
def setting() -> Iterator[None]:
    """Two nodes with policies that encrypt what their pods send each other; without states."""
    with world.nodes():
        for node in world.NODES:
            other = next(name for name in world.NODES if name != node)
            for version in (0, 1):
                mine, its = world.CIDRS[node][version], world.CIDRS[other][version]
                own, end = world.NODES[node][version], world.NODES[other][version]
                out = f"tmpl src {own} dst {end} proto esp reqid 1 mode tunnel"
                back = f"tmpl src {end} dst {own} proto esp reqid 1 mode tunnel"
                world.batch(
                    node,
                    f"""xfrm policy add src {mine} dst {its} dir out {out}
                    xfrm policy add src {its} dst {mine} dir fwd {back}
                    xfrm policy add src {its} dst {mine} dir in {back}
                    """,
                )
        yield


def _set_states(
    *, at_node2: bool = True, at_node1: bool = True, key: int = 0, spi: int = SPI
) -> None:
    """Give both nodes their states anew.

    Args:
        at_node2: node2 has the state by which it decrypts what node1 sends.
        at_node1: node1 has the state by which it encrypts.
        key: number of node2's key for that.
        spi: of that state of node2.
    """
    for node in world.NODES:
        lines = ["xfrm state flush"]
        for version in (0, 1):
            first, second = (world.NODES[name][version] for name in ("node1", "node2"))
            anything = "::/0" if version else "0.0.0.0/0"
            for source, target in ((first, second), (second, first)):
                there = source == first
                if there and not (at_node1 if node == "node1" else at_node2):
                    continue
                number, used = (spi, key) if there and node == "node2" else (SPI, 0)
                lines.append(
                    f"xfrm state add src {source} dst {target} proto esp spi {number} reqid 1 "
                    f"mode tunnel aead rfc4106(gcm(aes)) 0x{_KEYS[used]} 128 sel src {anything} "
                    f"dst {anything}"
                )
        world.batch(node, "\n".join(lines) + "\n")


def _told(*versions: int, **more: Any) -> Any:
    told = world.seen(*versions or (4,), secrets=list(_KEYS), **more)
    argv = ("ip", "-s", "xfrm", "state", "list", "nokeys")
    listed = {node: world.run(node, *argv) for node in world.NODES}
    policies = {node: world.run(node, "ip", "xfrm", "policy", "list") for node in world.NODES}
    counted = {node: world.read(node, "xfrm_stat") for node in world.NODES}
    return {**told, "listed": listed, "policies": policies, "counted": counted}


def check_ipsec_healthy() -> Any:
    """Traffic of both IP versions comes through."""
    _set_states()
    return _told(4, 6)


def check_ipsec_no_state_at_the_receiver() -> Any:
    """node2 lacks the state for what node1 sends: XfrmInNoStates."""
    _set_states(at_node2=False)
    return _told(4, 6, broken=True)


def check_ipsec_no_state_at_the_sender() -> Any:
    """node1 lacks the state by which it sends: XfrmOutNoStates."""
    _set_states(at_node1=False)
    return _told(4, 6, broken=True)


def check_ipsec_other_spi() -> Any:
    """node2's state has another SPI."""
    _set_states(spi=4)
    return _told(broken=True)


def check_ipsec_other_key() -> Any:
    """node2's state has another key, which nobody may read: XfrmInStateProtoError."""
    _set_states(key=1)
    return _told(broken=True)


def check_ipsec_esp_blocked() -> Any:
    """node2 drops ESP."""
    _set_states()
    with world.rule("node2", "INPUT", "-p", "esp", "-j", "DROP"):
        return _told(broken=True)


def _policy(node: str, direction: str, action: str, *, update: bool = True) -> None:
    """Give a node's policy of IPv4 for the packets from node1's pods to node2's another action, or
    with update=False take it away."""
    source, target = (world.CIDRS[name][0] for name in ("node1", "node2"))
    selector = f"src {source} dst {target} dir {direction}"
    own, end = (world.NODES[name][0] for name in ("node1", "node2"))
    template = f"tmpl src {own} dst {end} proto esp reqid 1 mode tunnel"
    if not update:
        world.batch(node, f"xfrm policy delete {selector}\n")
        return
    world.batch(node, f"xfrm policy update {selector} action {action} {template}\n")


def check_ipsec_policy_that_blocks() -> Any:
    """node1's policy for node2's pods drops: XfrmOutPolBlock."""
    _set_states()
    _policy("node1", "out", "block")
    try:
        return _told(broken=True)
    finally:
        _policy("node1", "out", "allow")


def check_ipsec_no_policy_at_the_sender() -> Any:
    """Nothing asks node1 to encrypt; node2 takes only what was."""
    _set_states()
    _policy("node1", "out", "allow", update=False)
    try:
        return _told(broken=True)
    finally:
        _policy("node1", "out", "allow")


def check_ipsec_no_policy_at_the_receiver() -> Any:
    """No policy of node2 takes what it decrypts: XfrmInNoPols."""
    _set_states()
    _policy("node2", "fwd", "allow", update=False)
    _policy("node2", "in", "allow", update=False)
    try:
        return _told(broken=True)
    finally:
        _policy("node2", "fwd", "allow")
        _policy("node2", "in", "allow")
