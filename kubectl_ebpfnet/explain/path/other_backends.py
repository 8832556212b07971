"""The backends that a walk did not follow: does the choice decide what becomes of the packet?

A new connection goes to any of a frontend's backends (at random, by Maglev or by affinity), so the
walk is repeated for each other backend. Where some lose the packet and others do not, the answer is
undecided, and the backends that lose it are named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubectl_ebpfnet.explain.path import agent_behind
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.endings import Arrived, Dropped, Undecided
from kubectl_ebpfnet.explain.path.reply import lost
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Decides, Evidence, Finding, Fix, Severity

MOST = 16
"""Backends that are walked to; a Service may have thousands."""


@dataclass(frozen=True, slots=True)
class _Way:
    """What becomes of the packet by way of one backend: lost, or perhaps (and how), arrived, or
    neither; `sure`: that it is lost."""

    backend: str
    lost: str
    arrived: bool
    fix: Fix | None = None
    evidence: tuple[Evidence, ...] = ()
    sure: bool = True


def compare(walk: PathBuilder, run: Callable[[PathBuilder], None]) -> None:
    """Walk to every other backend, and say where the choice decides.

    Args:
        walk: has ended.
        run: runs a walk from the same start.
    """
    choice = walk.choice
    if choice is None:
        return
    ways = [_way(walk, choice.taken)]
    for backend in choice.others[:MOST]:
        other = PathBuilder(walk.cluster, walk.ends, size=walk.size, forced=backend)
        other.flows.extend(walk.ends.flows)
        run(other)
        agent_behind.name_cause(other)
        ways.append(_way(other, kinds.text(backend)))
    lost = [way for way in ways if way.lost]
    if not lost or not any(way.arrived for way in ways):
        return
    listed = ", ".join(way.backend for way in lost[:3])
    count = f"{len(lost)} of {len(choice.others) + 1} backends"
    lose = "lose" if all(way.sure for way in lost) else "may lose"
    reason = f"{count} of {choice.service} {lose} the packet ({listed}), and any may be chosen"
    undecided = Undecided(choice.hop, Decides.WAY, reason, lost[0].fix)
    walk.undecided.insert(0, undecided)
    if isinstance(walk.end, Dropped):
        walk.end = replace(walk.end, after=(undecided, *walk.end.after))
    finding = Finding(
        Severity.ERROR,
        f"{count} of {choice.service} {lose} the packet: {listed}",
        " ".join(f"{way.backend}: {way.lost}." for way in lost[:3])
        + " Connections that are sent there fail, the others do not.",
        tuple(proof for way in lost[:3] for proof in way.evidence),
    )
    walk.findings.insert(0, finding)  # what holds of all backends before one's


def _way(walk: PathBuilder, backend: str) -> _Way:
    end = walk.end
    answer = lost(walk)
    if answer is not None and walk.back is not None and not walk.undecided:
        proof = walk.back.hops[-1].evidence
        return _Way(backend, f"the answer is lost: {answer.drop.by}", False, answer.fix, proof)
    if isinstance(end, Dropped) and not any(u.decides is Decides.WAY for u in end.after):
        return _Way(backend, end.drop.by, False, end.fix, walk.hops[-1].evidence)
    stale = walk.stale
    open_ = (u for u in walk.undecided if stale is not None and u.reason.startswith(stale.cause))
    behind = next(open_, None)  # its load-balancer has a backend that the Service has lost
    if behind is not None and isinstance(end, Arrived):
        return _Way(backend, behind.reason, False, behind.fix, walk.hops[-1].evidence, sure=False)
    return _Way(backend, "", isinstance(end, Arrived) and not walk.undecided)
