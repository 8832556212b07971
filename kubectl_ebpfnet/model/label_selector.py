"""A label selector as kubectl's `-l` takes it, for captures: a live API server reads it itself.

Source: k8s.io/apimachinery/pkg/labels (selector.go): `a=b`, `a==b`, `a!=b`, `a`, `!a`,
`a in (b,c)`, `a notin (b,c)`, joined by commas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]*"
_TERM = re.compile(
    rf"\s*(?:(?P<not>!)\s*(?P<absent>{_KEY})|(?P<key>{_KEY})"
    rf"(?:\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True)
class LabelTerm:
    """A term of a selector.

    Attributes:
        key: of the label.
        values: it has to be one of these, None for any.
        negated: labels that fit do not, and those without the key do.
    """

    key: str
    values: frozenset[str] | None
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether it holds of labels."""
        has = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return has is not self.negated


def label_selector(text: str) -> tuple[LabelTerm, ...]:
    """Read a selector; () for "".

    Raises:
        UsageError: it is none.
    """
    terms: list[LabelTerm] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise UsageError(
                f"unable to parse label selector {text[:200]!r} at character {at + 1}",
                hint="e.g. -l app=web, -l 'tier in (a,b),!canary'",
            )
        at = found.end()
        if found["not"]:
            terms.append(LabelTerm(found["absent"], None, negated=True))
            continue
        sign = found["sign"] or found["set"]
        values = found["value"] if found["sign"] else found["values"]
        split = None if sign is None else frozenset(v.strip() for v in values.split(","))
        terms.append(LabelTerm(found["key"], split, negated=sign in ("!=", "notin")))
    return tuple(terms)
