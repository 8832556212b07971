"""Commands that a user may copy, of a cluster whose names a shell would run."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.remedy import _named
from kubectl_ebpfnet.explain.path.stages import next_hop, policy_words
from kubectl_ebpfnet.explain.path.stages.passage import Passage
from kubectl_ebpfnet.model.nft import NftRule
from kubectl_ebpfnet.model.path import Target

EVIL = "x$(id);y"


@pytest.mark.parametrize(
    "command",
    [
        commands.edit_service(EVIL, EVIL),
        commands.list_slices(EVIL, EVIL),
        commands.describe_pod(EVIL, EVIL),
        commands.pod_logs(EVIL, EVIL),
        f"kubectl get pods {commands.pods_on(EVIL)}",
        policy_words.edit(
            cast(Any, SimpleNamespace(kind="NetworkPolicy", name=EVIL, namespace=EVIL))
        ),
        next_hop._delete(
            cast(Any, SimpleNamespace(node="n1", device=EVIL)),
            cast(Any, SimpleNamespace(address="10.0.0.1")),
        ).command,
        next_hop._ask_for(
            cast(Any, SimpleNamespace(node="n1", device=EVIL)), cast(Any, "10.0.0.1")
        ).command,
        f"kubectl ebpfnet path pod/x {_named(Target(EVIL, 'name', name=EVIL, port=80))}",
        Passage.delete(
            cast(Any, None), NftRule(family="inet", table=EVIL, chain=EVIL, number=1, handle=7)
        ),
    ],
)
def test_no_name_ends_its_word(command: str) -> None:
    """A shell that splits it finds the name whole, and nothing that it would run."""
    words = shlex.split(command)
    assert any(EVIL in each for each in words)
    assert not set(";&|`$(") & set(re.sub("'[^']*'", "", command))
