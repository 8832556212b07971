"""Marks of packets and connections of which some bits may not be known.

Sources: Linux net/netfilter/xt_mark.c and xt_connmark.c; iptables-extensions(8), MARK and CONNMARK.
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.untrusted import integer

BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of 32 bits.

    Attributes:
        value: the bits that are known; 0 elsewhere.
        known: which bits are known.
    """

    value: int = 0
    known: int = BITS

    def equals(self, value: int, mask: int = BITS) -> bool | None:
        """Tell whether mark & mask == value; None where bits that decide are not known."""
        if (self.value ^ value) & self.known & mask or value & ~mask:
            return False
        return True if mask & ~self.known == 0 else None

    def changed(self, value: int, mask: int) -> Mark:
        """Return (mark & ~mask) ^ value, which is what `--set-xmark value/mask` does."""
        known = (self.known | mask) & BITS
        return Mark(((self.value & ~mask) ^ value) & known, known)

    def mixed(self, mask: int, other: Mark, other_mask: int) -> Mark:
        """Return (mark & ~mask) ^ (other & other_mask): `--save-mark` and `--restore-mark`."""
        known = (self.known | mask) & (other.known | ~other_mask) & BITS
        return Mark(((self.value & ~mask) ^ (other.value & other_mask)) & known, known)

    def joined(self, other: Mark) -> Mark:
        """Return what is known of a mark that is either of two."""
        known = self.known & other.known & ~(self.value ^ other.value)
        return Mark(self.value & known, known)

    @property
    def number(self) -> int | None:
        """The whole mark, None where a bit is not known."""
        return self.value if self.known == BITS else None


NO_MARK = Mark(0)
NOT_KNOWN = Mark(0, 0)


def marked(rule: NetfilterRule, mark: Mark, connmark: Mark) -> tuple[Mark, Mark]:
    """Return the marks of a packet and of its connection after a MARK or CONNMARK rule.

    Args:
        rule: whose target it is.
        mark, connmark: before the rule.
    """
    words = rule.target_options
    try:
        return _applied(rule.jump, words, mark, connmark)
    except (ParseError, ValueError):
        return (NOT_KNOWN, connmark) if rule.jump == "MARK" else (NOT_KNOWN, NOT_KNOWN)


def _applied(target: str, words: tuple[str, ...], mark: Mark, connmark: Mark) -> tuple[Mark, Mark]:
    name, *values = words
    if name in ("--save-mark", "--restore-mark"):
        masks = dict(zip(values[::2], values[1::2], strict=True))
        both = masks.pop("--mask", hex(BITS))
        of_packet = _number(masks.pop("--nfmask", both))
        of_connection = _number(masks.pop("--ctmask", both))
        if masks:  # --left-shift-mark, --right-shift-mark
            raise ValueError(masks)
        if name == "--save-mark":
            return mark, connmark.mixed(of_connection, mark, of_packet)
        return mark.mixed(of_packet, connmark, of_connection), connmark
    (text,) = values
    value, mask = _change(name, text)
    if target == "MARK":
        return mark.changed(value, mask), connmark
    return mark, connmark.changed(value, mask)


def _change(name: str, text: str) -> tuple[int, int]:
    """Return the value and mask of `--set-xmark` that do the same. Raises ValueError."""
    number, slash, mask = text.partition("/")
    value = _number(number)
    if name == "--set-xmark":
        return value, _number(mask) if slash else BITS
    if name == "--set-mark":
        return value, value | _number(mask) if slash else BITS
    if name == "--and-mark":
        return 0, ~value & BITS
    if name == "--or-mark":
        return value, value
    if name == "--xor-mark":
        return value, 0
    raise ValueError(name)


def _number(text: str) -> int:
    return integer(text, "a rule", most=BITS)
