"""Whether an endpoint is in policy audit mode, where the option was not read: what Cilium's
conntrack has of the endpoint's flows decides (captures of node pods that did not ask for it)."""

from __future__ import annotations

import pytest

from tests.explain.path.changed import ask, changed, dropped_at

AUDITED = "../faults/v31-audit-mode/pod.zip"
"""client, of endpoint 845, asks 1.1.1.1:80 in audit mode; its policy lets it out to the cluster."""
ENFORCED = "../features/policies/pod.zip"
EMPTIED = "../faults/v37-policy-map-emptied/pod.zip"
UNREAD = "whether the endpoint is in policy audit mode was not read"


@pytest.mark.parametrize("to", ["8.8.8.8:80", "9.9.9.9:53"])
def test_another_flow_that_the_map_denies_and_that_passed_leaves_it_open(to: str) -> None:
    path = ask(changed(AUDITED), "client", to)
    assert path.verdict == "unknown"
    assert f"{UNREAD}, and TCP 10.44.1.120:41064 → 1.1.1.1:80 was let through, 6 s" in path.cause
    assert path.drop is None


@pytest.mark.parametrize(
    ("capture", "to"),
    [
        (ENFORCED, "pod/t-range:9000"),
        (ENFORCED, "pod/t-icmp:8080"),  # ICMP passed, by a rule for its type
        (EMPTIED, "8.8.8.8:80"),  # flows passed before the map was emptied
    ],
)
def test_a_policy_is_taken_at_its_word_where_nothing_hints_at_audit_mode(
    capture: str, to: str
) -> None:
    assert dropped_at(ask(changed(capture), "client", to)).kind == "policy"
