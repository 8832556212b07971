"""What traffic in a virtual machine does, and what the path has to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubectl_ebpfnet.model.path import Path, Verdict
from tests.kernels import cluster

NATIVE = {
    "routing-mode": "native",
    "enable-host-legacy-routing": "true",
    "enable-ipv4-masquerade": "false",
    "enable-ipv6-masquerade": "false",
}
WIREGUARD = ({**NATIVE, "enable-wireguard": "true"}, {"key": 255})
IPSEC = ({**NATIVE, "enable-ipsec": "true"}, {"key": 3})
PLAIN: tuple[dict[str, str], dict[str, Any]] = (NATIVE, {})
GENEVE = ({**NATIVE, "routing-mode": "tunnel", "tunnel-protocol": "geneve"}, {"tunnel": True})


@dataclass(frozen=True, slots=True)
class Expected:
    """What a check has to tell.

    Attributes:
        cilium: settings of the cluster, and what its ipcache has.
        verdict: of the path.
        words: in the verdict's cause or reason.
        node: where the packet is lost, "" where it is not, or not known.
        versions: IP versions that were tried.
        then: of what the check told as `dropping` besides.
    """

    cilium: tuple[dict[str, str], dict[str, Any]]
    verdict: Verdict = Verdict.REACHABLE
    words: str = ""
    node: str = ""
    versions: tuple[int, ...] = field(default=(4,))
    then: Expected | None = None

    def path(self, told: Any, version: int) -> Path:
        """The path that is explained from what was told."""
        settings, ipcache = self.cilium
        return cluster.path(told, settings, version, **ipcache)

    def check(self, told: Any) -> None:
        """Assert that the traffic was as the path says, and the path as it must be; nothing where
        the kernel lacks what the check is about."""
        if "lacks" in told:
            return
        if self.then is not None:
            self.then.check(told["dropping"])
        for version in self.versions:
            assert told[f"answered{version}"] is (self.verdict is Verdict.REACHABLE)
            path = self.path(told, version)
            assert path.verdict is self.verdict, (path.reason, path.hops)
            assert self.words in f"{path.cause} {path.reason}"
            assert (path.drop.node if path.drop is not None else "") == self.node


EXPECTED = {
    "wireguard_idle": Expected(WIREGUARD),
    "wireguard_healthy": Expected(WIREGUARD, versions=(4, 6)),
    "wireguard_healthy_over_ipv6": Expected(WIREGUARD, versions=(4, 6)),
    "wireguard_wrong_key": Expected(WIREGUARD, Verdict.DROPPED, "for node2, whose own is", "node1"),
    "wireguard_not_allowed": Expected(
        WIREGUARD, Verdict.DROPPED, "has no peer whose allowed addresses hold", "node1", (4, 6)
    ),
    "wireguard_wrong_port": Expected(
        WIREGUARD, Verdict.DROPPED, "sends to 172.30.0.12 port 51820", "node1"
    ),
    "wireguard_stranger": Expected(
        WIREGUARD, Verdict.DROPPED, "has no peer with node1's public key", "node2"
    ),
    "wireguard_input_blocked": Expected(
        WIREGUARD, Verdict.DROPPED, "-p udp -m udp --dport 51871 -j DROP", "node2"
    ),
    "wireguard_output_blocked": Expected(
        WIREGUARD, Verdict.DROPPED, "--mark 0xe00/0xf00 -j DROP", "node1"
    ),
    "wireguard_input_blocked_by_ipv6": Expected(
        WIREGUARD, Verdict.DROPPED, "-p udp -m udp --dport 51871 -j DROP", "node2"
    ),
    "wireguard_unseen_firewall": Expected(WIREGUARD, Verdict.UNKNOWN, "got no handshake answered"),
    "ipsec_healthy": Expected(IPSEC, versions=(4, 6)),
    "ipsec_no_state_at_the_receiver": Expected(
        IPSEC, Verdict.DROPPED, "has SPI 3", "node2", (4, 6)
    ),
    "ipsec_no_state_at_the_sender": Expected(
        IPSEC, Verdict.DROPPED, "no IPsec state leads to node2", "node1", (4, 6)
    ),
    "ipsec_other_spi": Expected(IPSEC, Verdict.DROPPED, "has SPI 3", "node2"),
    "ipsec_other_key": Expected(IPSEC, Verdict.UNKNOWN, "the integrity check of all"),
    "ipsec_esp_blocked": Expected(IPSEC, Verdict.DROPPED, "-p esp -j DROP", "node2"),
    "ipsec_policy_that_blocks": Expected(
        IPSEC, Verdict.DROPPED, "10.244.1.0/24 → 10.244.2.0/24 (out) blocks it", "node1"
    ),
    "ipsec_no_policy_at_the_sender": Expected(
        IPSEC, Verdict.UNKNOWN, "no policy of IPsec on node1 takes it: it leaves unencrypted"
    ),
    "ipsec_no_policy_at_the_receiver": Expected(
        IPSEC, Verdict.UNKNOWN, "no policy of IPsec takes it on node2: the stack drops it"
    ),
    "fq_healthy": Expected(PLAIN, versions=(4, 6)),
    "netem_that_delays": Expected(PLAIN, versions=(4, 6)),
    "netem_that_drops": Expected(
        PLAIN,
        Verdict.DROPPED,
        "qdisc netem at eth0 of node node1 drops everything",
        "node1",
        (4, 6),
    ),
    "netkit": Expected(
        PLAIN,
        versions=(4, 6),
        then=Expected(PLAIN, Verdict.UNKNOWN, "what guard (netkit/peer, id", versions=(4, 6)),
    ),
    "geneve_healthy": Expected(GENEVE, versions=(4, 6)),
    "geneve_input_blocked": Expected(GENEVE, Verdict.DROPPED, "--dport 6081 -j DROP", "node2"),
    "geneve_output_blocked": Expected(GENEVE, Verdict.DROPPED, "--dport 6081 -j DROP", "node1"),
}
"""By the name of the check in `inside/`."""
