"""The largest packet that fits on the way, there and back, and who sends larger ones.

The way back is that of the answer's own walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.explain.kernel.mtu import Limit, Sender
from kubectl_ebpfnet.explain.path.endings import Arrived
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Finding, Larger, PathMtu, Severity
from kubectl_ebpfnet.model.shell import word


@dataclass(frozen=True, slots=True)
class _Way:
    """A direction: who sends, who receives, and what the places on the way take.

    Attributes:
        sender: None where it was not read.
        receiver: of a TCP connection, whose announced size bounds the sender's too.
        limits: in the packet's order.
        missing: what was not read, besides.
        back: it is the way back.
    """

    sender: Sender | None
    receiver: Sender | None
    limits: Sequence[Limit]
    missing: tuple[str, ...]
    back: bool

    @property
    def tightest(self) -> Limit | None:
        """The place that takes the smallest packets; the first of several."""
        known = [limit for limit in self.limits if limit.fits is not None]
        return min(known, key=lambda limit: limit.fits or 0, default=None)

    def summary(self, back: PathMtu | None = None) -> PathMtu | None:
        """Return it as the answer has it; None where nothing of it was read."""
        if not self.limits and self.sender is None:
            return None
        unread = (f"{x.device} of {x.node}" for x in self.limits if x.mtu is None)
        tight = self.tightest
        pod = self.sender.mtu if self.sender is not None else None
        missing = tuple(dict.fromkeys((*self.missing, *unread)))
        if tight is None:
            return PathMtu(None, "", "", pod, None, missing, back)
        return PathMtu(tight.fits, tight.by, tight.node, pod, tight.larger, missing, back)


def of_path(walk: PathBuilder) -> PathMtu | None:
    """Return the largest packet that fits on the part of the way that a walk went."""
    there, back = _ways(walk)
    return there.summary(back.summary() if back is not None else None)


def findings(walk: PathBuilder) -> Iterator[Finding]:
    """Yield a finding for each direction in which larger packets are sent than fit.

    Args:
        walk: has arrived.
    """
    for way in _ways(walk):
        if way is not None and way.sender is not None and way.tightest is not None:
            sends = way.sender.mtu
            if walk.ends.flow.protocol == TCP and way.receiver is not None:
                sends = min(sends, way.receiver.announced)
            if sends > (way.tightest.fits or 0) + way.tightest.beyond:
                yield _too_large(walk, way, way.sender, way.tightest, sends)


_BECOMES = {
    Larger.TOLD: "are dropped, and the sender is told",
    Larger.FRAGMENTED: "travel in fragments",
    Larger.LOST: "are lost in silence",
    Larger.UNKNOWN: "may be lost in silence",
}
_WHY = {
    Larger.TOLD: "The node's stack drops one that has DF set, as TCP's have, and says by ICMP "
    "which size passes; the sender then sends smaller ones, if that message comes to it.",
    Larger.FRAGMENTED: "The node fragments the tunnel's packet, which costs speed, and loses it "
    "where a network on the way drops fragments.",
    Larger.LOST: "Nobody tells the sender: a connection opens, and stalls once it carries more.",
    Larger.UNKNOWN: "No stack looks at its size there: the driver, or the network behind it, sends "
    "it or drops it, and tells nobody: a connection opens, and may stall once it carries more.",
}


def _too_large(walk: PathBuilder, way: _Way, sender: Sender, limit: Limit, sends: int) -> Finding:
    by_source = not way.back and limit.node == walk.ends.first_node
    told = limit.larger is Larger.TOLD and by_source
    what = f"{'answers' if way.back else 'packets'} of more than {limit.fits} bytes"
    clamped = _clamped(walk) if walk.ends.flow.protocol == TCP else ""
    if limit.by == limit.device:
        wanted = max(sends + limit.added, limit.mtu or 0)
        mend = f"`ip link set {word(limit.device)} mtu {wanted}` on {limit.node}"
    else:
        mend = f"`ip route show table all | grep 'mtu {limit.mtu}'` on {limit.node}"
    return Finding(
        Severity.INFO if told or clamped else Severity.WARNING,
        f"{what} {_BECOMES[limit.larger]}: {limit.text}",
        f"{sender.name} sends up to {sends} bytes (MTU {sender.mtu} of {sender.by}). "
        f"{_WHY[limit.larger]}{clamped} Mend it by {mend}, or by smaller packets of the pods "
        "(Cilium's `mtu`, and new pods).",
        limit.evidence + sender.evidence,
    )


def _clamped(walk: PathBuilder) -> str:
    """Return what is to be said of rules of netfilter that set the segment size of TCP."""
    version = walk.ends.flow.destination.version
    for name in walk.nodes:
        rules = walk.cluster.node(name).ruleset(version).facts
        if any(rule.jump == "TCPMSS" for found in rules for rule in found.rules):
            return f" A rule TCPMSS of {name} may make TCP's segments small enough."
    return ""


def _ways(walk: PathBuilder) -> tuple[_Way, _Way | None]:
    """Return the way there and the way back; None where no answer comes back."""
    answer = walk.back
    far = answer.sends if answer is not None else None
    there = _Way(walk.sends, far, walk.limits, _unread(walk), back=False)
    if answer is None or not isinstance(answer.end, Arrived):
        return there, None
    return there, _Way(far, walk.sends, answer.limits, _unread(answer), back=True)


def _unread(walk: PathBuilder) -> tuple[str, ...]:
    if walk.sends is not None:
        return ()
    name = walk.source_pod if walk.sender.kind == "pod" else walk.sender.text
    return (f"what {walk.sender.kind} {name} sends",)
