"""`doctor --print-rbac`: the roles of each tier, for `kubectl apply -f -`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.tiers import ABOUT, ROLES, Role, Tier, rules
from kubectl_ebpfnet.render.text.documents import manifest_text

ALL = "all"
"""The value of a --print-rbac without one."""


def rbac_text(word: str, format_name: str = "yaml") -> str:
    """Return the roles of a tier.

    Args:
        word: a tier, or ALL.
        format_name: `yaml` or `json`.

    Raises:
        UsageError: no such tier, no such format.
    """
    if word not in (ALL, *Tier):
        raise UsageError(f"--print-rbac={word!r}: no such tier", hint=f"one of: {', '.join(Tier)}")
    tiers = [tier for tier in Tier if word in (ALL, tier)]
    roles = {role.name: role for tier in tiers for role in ROLES[tier]}
    if format_name != "yaml":
        return manifest_text([manifest(role) for role in roles.values()], format_name)
    lines = [line for tier in tiers for line in _about(tier)]
    for role in roles.values():
        lines += ["---", *_document(role)]
    return "".join(f"{line}\n" for line in lines)


def manifest(role: Role) -> dict[str, Any]:
    """Return a role as an object of the API."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": role.name},
        "rules": [rule for rule, _ in rules(role.rights)],
    }


def _about(tier: Tier) -> Iterator[str]:
    yield f"# {tier}: {ABOUT[tier]}."
    for role in ROLES[tier]:
        if role.flag:
            yield f"#   only for {role.flag}:"
        for place in role.namespaces or ("",):
            kind, where = ("rolebinding", f"-n {place} ") if place else ("clusterrolebinding", "")
            what = f"{kind} {role.name} {where}--clusterrole={role.name}"
            yield f"#   kubectl create {what} --user=SRE"


def _document(role: Role) -> Iterator[str]:
    yield f"# {role.about[0].upper()}{role.about[1:]}."
    yield "apiVersion: rbac.authorization.k8s.io/v1"
    yield "kind: ClusterRole"
    yield "metadata:"
    yield f"  name: {role.name}"
    yield "rules:"
    for rule, effect in rules(role.rights):
        yield f"  # Without: {effect}."
        for number, (key, words) in enumerate(rule.items()):
            yield f"  {' ' if number else '-'} {key}: {_flow(words)}"


def _flow(words: Iterable[str]) -> str:
    return f"[{', '.join(word or json.dumps(word) for word in words)}]"
