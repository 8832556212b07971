"""A packet at a netfilter hook: what the matches of rules look at."""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.nft import AnyRule


@dataclass(frozen=True, slots=True)
class Context:
    """A packet at a netfilter hook.

    Attributes:
        flow: its 5-tuple there.
        in_device, out_device: "" where the hook has none, None where it is not known.
        mark: of the packet.
        connmark: of its connection: 0 for a new one until a rule sets it.
        state: conntrack state word: `NEW`, `ESTABLISHED`, `UNTRACKED`, …; "" when not known.
        tracked: connection tracking has seen it; the table raw comes before that.
        translated: its connection has a destination NAT (state `DNAT`); None when not known.
        original: the flow before that, None for `flow` itself.
        sets: ipset name → members, for the sets whose content is known.
        local: addresses of the node itself, for `addrtype`; None when not known.
        bridged: it passes a bridge; None when not known.
        back_device: the device of the node's route to the packet's source, whatever mark it has,
            for `rpfilter` and `fib`; "" for no route, None when not known.
        to_client: it goes to a client: a destination port that is not known is of CLIENT_PORTS.
        proxied: a transparent proxy of this node may have a socket of its connection; None when not
            known.
        marked_by: rules that set `mark` or `connmark`, in their order.
        untracked_by: the rule that keeps connection tracking from it, where `state` is UNTRACKED.
        assumed: undecided rules that matched, if the packet is here as it is.
    """

    flow: Flow
    in_device: str | None = ""
    out_device: str | None = ""
    mark: Mark = NO_MARK
    connmark: Mark = NO_MARK
    state: str = "NEW"
    tracked: bool = True
    translated: bool | None = False
    original: Flow | None = None
    sets: dict[str, frozenset[Address]] = field(default_factory=dict)
    local: frozenset[Address] | None = None
    bridged: bool | None = None
    back_device: str | None = None
    to_client: bool = False
    proxied: bool | None = None
    marked_by: tuple[AnyRule, ...] = ()
    untracked_by: AnyRule | None = None
    assumed: tuple[AnyRule, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether it is the first packet of its connection."""
        return self.state in ("NEW", "UNTRACKED")
