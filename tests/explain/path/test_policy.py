"""Policy verdicts, against bpf/lib/policy.h as cilium-facts 3.8 tells it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.path.policy import Remote, decide, describe
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
    verdict = decide([], EP, "egress", Remote(2), TCP, 80)
    assert verdict.allowed is False
    assert verdict.reason == "Policy denied"


def test_the_allow_all_entry_allows_everything() -> None:
    assert decide([entry(0)], EP, "egress", Remote(1395), UDP, 53).allowed is True


def test_other_endpoints_and_the_other_direction_do_not_count() -> None:
    entries = [PolicyEntry(7, False, "egress", 0, 0), entry(0, direction="ingress")]
    assert decide(entries, EP, "egress", Remote(2), TCP, 80).allowed is False


def test_the_port_and_the_protocol_must_match() -> None:
    entries = [entry(2, TCP, (80, 80))]
    assert decide(entries, EP, "egress", Remote(2), TCP, 80).allowed is True
    assert decide(entries, EP, "egress", Remote(2), TCP, 81).allowed is False
    assert decide(entries, EP, "egress", Remote(2), UDP, 80).allowed is False
    assert decide(entries, EP, "egress", Remote(1395), TCP, 80).allowed is False


def test_a_port_range_matches_inclusively() -> None:
    entries = [entry(0, TCP, (8080, 8095))]
    verdicts = [decide(entries, EP, "egress", Remote(9), TCP, p) for p in (8079, 8080, 8095, 8096)]
    assert [verdict.allowed for verdict in verdicts] == [False, True, True, False]


def test_world_is_world_in_single_and_dual_stack() -> None:
    assert decide([entry(9, TCP, (80, 80))], EP, "egress", Remote(2), TCP, 80).allowed is True


def test_a_deny_wins_without_precedence() -> None:
    entries = [entry(0), entry(2, TCP, (80, 80), deny=True)]
    verdict = decide(entries, EP, "egress", Remote(2), TCP, 80)
    assert verdict.allowed is False
    assert verdict.reason == "Policy denied by denylist"
    assert decide(entries, EP, "egress", Remote(2), TCP, 443).allowed is True


def test_the_higher_precedence_wins() -> None:
    low = entry(0, precedence=100, deny=True)
    high = entry(2, TCP, (80, 80), precedence=4294967040)
    assert decide([low, high], EP, "egress", Remote(2), TCP, 80).entry is high
    assert decide([low, high], EP, "egress", Remote(2), TCP, 81).entry is low


def test_icmp_matches_its_type_as_port() -> None:
    entries = [entry(2, ICMP, (8, 8))]
    assert decide(entries, EP, "egress", Remote(2), ICMP, 8).allowed is True
    assert decide(entries, EP, "egress", Remote(2), ICMP, 3).allowed is False


METADATA = ("cidr:169.254.169.254/32", "reserved:world")


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [
        (Remote(16777220, frozenset(METADATA)), False),
        (Remote(16777221, frozenset({*METADATA, "fqdn:x"})), True),  # a subset is another identity
        (Remote(2), True),  # reserved identities have labels that the parser knows
        (Remote(16777220, address=ip_address("169.254.169.254")), None),
        (Remote(16777221, address=ip_address("169.254.169.253")), True),
        (Remote(1395), None),
    ],
)
def test_a_deny_entry_that_is_named_by_labels(remote: Remote, allowed: bool | None) -> None:
    entries = [entry(-1, deny=True, labels=METADATA), entry(0)]
    verdict = decide(entries, EP, "egress", remote, TCP, 80)
    assert verdict.allowed is allowed
    assert (verdict.entry is entries[0]) == (allowed is not True)


def test_labels_decide_only_where_they_could_change_the_verdict() -> None:
    web = entry(-1, labels=("k8s:app=web",))
    assert decide([web], EP, "egress", Remote(1395), TCP, 80).allowed is None
    assert decide([web, entry(1395)], EP, "egress", Remote(1395), TCP, 80).allowed is True
    denied = entry(-1, TCP, (443, 443), deny=True, labels=("k8s:app=web",))
    assert decide([denied, entry(0)], EP, "egress", Remote(1395), TCP, 80).allowed is True


def test_a_node_may_have_labels_beside_its_reserved_one() -> None:
    entries = [entry(-1, deny=True, labels=("reserved:host", "reserved:kube-apiserver")), entry(0)]
    assert decide(entries, EP, "egress", Remote(1), TCP, 80).allowed is None
    assert decide(entries, EP, "egress", Remote(2), TCP, 80).allowed is True


def test_an_unknown_identity_matters_only_to_entries_of_identities() -> None:
    nobody = Remote(None)
    assert decide([entry(0)], EP, "egress", nobody, TCP, 80).allowed is True
    assert decide([entry(0), entry(7, deny=True)], EP, "egress", nobody, TCP, 80).allowed is None
    assert decide([], EP, "egress", nobody, TCP, 80).allowed is False


def test_a_port_that_is_not_known_matters_only_to_entries_of_ports() -> None:
    some = [entry(2, TCP, (80, 80))]
    assert decide(some, EP, "egress", Remote(2), TCP, None).allowed is None
    assert decide(some, EP, "egress", Remote(2), UDP, None).allowed is False
    assert decide([*some, entry(2)], EP, "egress", Remote(2), TCP, None).allowed is True
    denied = [entry(0), entry(2, TCP, (80, 80), deny=True)]
    assert decide(denied, EP, "egress", Remote(2), TCP, None).allowed is None


def test_of_one_identity_the_longest_prefix_is_found() -> None:
    """The map is a trie: what is more specific hides what is not, deny or allow."""
    entries = [entry(2, deny=True), entry(2, TCP, (80, 80))]
    assert decide(entries, EP, "egress", Remote(2), TCP, 80).allowed is True
    assert decide(entries, EP, "egress", Remote(2), TCP, 81).allowed is False


def test_an_entry_of_a_port_wins_over_one_of_an_identity() -> None:
    entries = [entry(2, proxy_port=10001), entry(0, TCP, (80, 80))]
    assert decide(entries, EP, "egress", Remote(2), TCP, 80).entry is entries[1]
    both = [entry(2, TCP, (80, 80), proxy_port=10001), entry(0, TCP, (80, 80))]
    assert decide(both, EP, "egress", Remote(2), TCP, 80).entry is both[0]


def test_words() -> None:
    assert describe(entry(2, TCP, (80, 80))) == "allow egress to identity 2 at 80/TCP"
    assert describe(entry(0, direction="ingress")) == "allow ingress from any identity at any port"
