"""`doctor --print-rbac`: what it prints is what the program checks, and what kubectl reads."""

from __future__ import annotations

import json

import pytest
import yaml

from kubectl_ebpfnet.errors import UsageError, tier_of
from kubectl_ebpfnet.model.rights import RIGHTS
from kubectl_ebpfnet.model.tiers import EXEC, ROLES, Tier
from kubectl_ebpfnet.render.doctor.rbac import ALL, manifest, rbac_text
from tests.cli.console import run


@pytest.mark.parametrize("word", [ALL, *Tier])
def test_both_formats_say_the_same(word: str) -> None:
    text = rbac_text(word)
    assert max(map(len, text.splitlines())) < 200
    documents = [each for each in yaml.safe_load_all(text) if each]
    assert documents == json.loads(rbac_text(word, "json"))["items"]
    tiers = Tier if word == ALL else [Tier(word)]
    assert {each["metadata"]["name"] for each in documents} == {
        role.name for tier in tiers for role in ROLES[tier]
    }


def test_every_right_that_is_checked_is_printed_and_no_other() -> None:
    checked = {(r.verb, r.resource, r.name) for r in RIGHTS}
    printed = set()
    for role in (role for roles in ROLES.values() for role in roles):
        if role.flag == "probe-lb --verify-policies":
            continue  # no command needs it but that flag's
        for rule in manifest(role)["rules"]:
            (group,) = rule["apiGroups"]
            for resource in rule["resources"]:
                full = f"{resource}.{group}" if group else resource
                for name in rule.get("resourceNames", [""]):
                    printed |= {(verb, full, name) for verb in rule["verbs"]}
    assert printed == checked


def test_a_refusal_names_the_least_tier_that_has_the_verb() -> None:
    for right in RIGHTS:
        if right.resource == EXEC:
            continue  # by namespace: tests/explain/path/test_drops.py
        least = next(tier for tier in Tier if any(right in role.rights for role in ROLES[tier]))
        assert tier_of(right.verb, right.resource).startswith(f"tier {least},"), right


def test_no_tier_but_deploy_changes_anything_and_exec_is_not_cluster_wide() -> None:
    for tier in (Tier.CAPTURE, Tier.AGENTS, Tier.NODE_PODS):
        for role in ROLES[tier]:
            assert {right.verb for right in role.rights if right.resource != EXEC} <= {
                "get",
                "list",
            }
            assert role.namespaces or all(right.resource != EXEC for right in role.rights)
    assert ROLES[Tier.CAPTURE] == ()


def test_no_such_tier_and_no_such_format() -> None:
    with pytest.raises(UsageError, match="no such tier"):
        rbac_text("root")
    with pytest.raises(UsageError, match="no such format"):
        rbac_text(ALL, "wide")


def test_the_command_needs_no_cluster() -> None:
    for words, text in (
        (("--print-rbac",), rbac_text(ALL)),
        (("--print-rbac=agents",), rbac_text("agents")),
        (("--print-rbac=agents", "-o", "json"), rbac_text("agents", "json")),
    ):
        done = run("doctor", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, text, "")
    refused = run("doctor", "--print-rbac=root")
    assert (refused.returncode, refused.stdout) == (2, "")
