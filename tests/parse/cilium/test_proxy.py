"""What an agent says of its proxies, as Cilium 1.18 printed it."""

from __future__ import annotations

from kubectl_ebpfnet.parse.cilium import agent, proxy
from tests.parse.parse_samples import sample

HERE = "cilium-1.18/fqdn-node2"


def test_redirections() -> None:
    found = proxy.redirects(sample(f"{HERE}/status-o-json"))
    assert {(one.proxy, one.port) for one in found} == {("cilium-dns-egress", 42583)}
    assert found[2].name == "461:egress:UDP:53:"


def test_rules_of_endpoints() -> None:
    dns, names, http = (
        (
            next(rule for rule in found if rule.parser == "dns" and rule.protocol == "UDP"),
            next(rule for rule in found if rule.names),
            next(rule for rule in found if rule.parser == "http"),
        )
        if (found := proxy.rules(sample(f"{HERE}/endpoint-list-o-json")))
        else ()
    )
    assert (dns.endpoint_id, dns.direction, dns.port) == (461, "egress", 53)
    assert dns.allows == ("ok.example.test", "late.example.test")
    assert dns.policies == ("CiliumNetworkPolicy default/fqdn",)
    assert dns.realized
    assert (names.port, set(names.names)) == (80, {"ok.example.test", "late.example.test"})
    assert (http.endpoint_id, http.allows, http.realized) == (605, ("GET /clientip",), False)
    assert len(found) == 5  # what is realized and wanted alike stands once


def test_revisions() -> None:
    fqdn, l7 = agent.endpoints(sample(f"{HERE}/endpoint-list-o-json"))
    assert (fqdn.policy_revision, fqdn.wanted_revision) == (2, 2)
    assert (l7.state, l7.policy_revision, l7.wanted_revision) == ("regenerating", 3, 4)


def test_the_fqdn_cache() -> None:
    (entry,) = proxy.fqdn_cache(sample(f"{HERE}/fqdn-cache-list-o-json"))
    assert (entry.endpoint_id, entry.name, entry.ttl) == (461, "ok.example.test.", 60)
    assert list(map(str, entry.addresses)) == ["1.1.1.1"]
    assert entry.looked_up is not None
    assert entry.expires is not None
    assert (entry.expires - entry.looked_up).total_seconds() == 60
