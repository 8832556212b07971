"""Policy verdicts, against bpf/lib/policy.h as cilium-facts 3.8 tells it."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.policy import decide, describe
from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP

EP = 1174
ANY = (0, 65535)


def entry(
    identity: int, protocol: int = 0, ports: tuple[int, int] = ANY, **more: object
) -> PolicyEntry:
    return PolicyEntry(
        EP,
        bool(more.pop("deny", False)),
        str(more.pop("direction", "egress")),
        identity,
        protocol,
        ports,
        **more,
    )  # type: ignore[arg-type]


def test_an_empty_map_denies() -> None:
    verdict = decide([], EP, "egress", 2, TCP, 80)
    assert verdict.allowed is False
    assert verdict.reason == "Policy denied"


def test_the_allow_all_entry_allows_everything() -> None:
    assert decide([entry(0)], EP, "egress", 1395, UDP, 53).allowed is True


def test_other_endpoints_and_the_other_direction_do_not_count() -> None:
    entries = [PolicyEntry(7, False, "egress", 0, 0), entry(0, direction="ingress")]
    assert decide(entries, EP, "egress", 2, TCP, 80).allowed is False


def test_the_port_and_the_protocol_must_match() -> None:
    entries = [entry(2, TCP, (80, 80))]
    assert decide(entries, EP, "egress", 2, TCP, 80).allowed is True
    assert decide(entries, EP, "egress", 2, TCP, 81).allowed is False
    assert decide(entries, EP, "egress", 2, UDP, 80).allowed is False
    assert decide(entries, EP, "egress", 1395, TCP, 80).allowed is False


def test_a_port_range_matches_inclusively() -> None:
    entries = [entry(0, TCP, (8080, 8095))]
    assert [decide(entries, EP, "egress", 9, TCP, p).allowed for p in (8079, 8080, 8095, 8096)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_world_is_world_in_single_and_dual_stack() -> None:
    assert decide([entry(9, TCP, (80, 80))], EP, "egress", 2, TCP, 80).allowed is True


def test_a_deny_wins_without_precedence() -> None:
    entries = [entry(0), entry(2, TCP, (80, 80), deny=True)]
    verdict = decide(entries, EP, "egress", 2, TCP, 80)
    assert verdict.allowed is False
    assert verdict.reason == "Policy denied by denylist"
    assert decide(entries, EP, "egress", 2, TCP, 443).allowed is True


def test_the_higher_precedence_wins() -> None:
    low = entry(0, precedence=100, deny=True)
    high = entry(2, TCP, (80, 80), precedence=4294967040)
    assert decide([low, high], EP, "egress", 2, TCP, 80).entry is high
    assert decide([low, high], EP, "egress", 2, TCP, 81).entry is low


def test_icmp_matches_its_type_as_port() -> None:
    entries = [entry(2, ICMP, (8, 8))]
    assert decide(entries, EP, "egress", 2, ICMP, 8).allowed is True
    assert decide(entries, EP, "egress", 2, ICMP, 3).allowed is False


def test_labels_that_name_no_identity_cannot_decide() -> None:
    entries = [entry(-1, labels=("k8s:app=web",))]
    assert decide(entries, EP, "egress", 1395, TCP, 80).allowed is None


def test_an_unknown_label_does_not_hide_a_match() -> None:
    assert decide([entry(-1), entry(2)], EP, "egress", 2, TCP, 80).allowed is True


def test_words() -> None:
    assert describe(entry(2, TCP, (80, 80))) == "allow egress to identity 2 at 80/TCP"
    assert describe(entry(0, direction="ingress")) == "allow ingress from any identity at any port"
