"""Mutual authentication that a policy's entry asks for: whether an agent can give it at all.

The datapath lets pass what the map of authentications has, and asks the agent for what it lacks;
where no agent answers, nothing passes: "Authentication required" (189).

Source: Cilium bpf/lib/auth.h, pkg/auth (manager.go: reserved identities never authenticate;
mutual_authhandler.go is there by `mesh-auth-mutual-enabled` alone).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.settings import config_data, setting
from kubectl_ebpfnet.model.cilium import PolicyEntry

_ENABLED, _MUTUAL = "mesh-auth-enabled", "mesh-auth-mutual-enabled"
_RESERVED_END = 256
"""Identities below are reserved ones (pkg/identity/numericidentity.go)."""


def why_never(cluster: ClusterView, subject: PolicySubject, entry: PolicyEntry) -> str:
    """Return why what an entry lets pass is never authenticated, one clause; "" where it may be.

    Args:
        cluster: has Cilium's settings.
        subject: whose policy is asked about whom.
        entry: wants authentication.
    """
    if entry.auth == "test-always-fail":
        return "its mode test-always-fail never authenticates"
    if entry.auth != "spire":
        return ""
    identity = subject.remote.identity
    if identity is not None and 0 < identity < _RESERVED_END:
        return "a reserved identity never authenticates, pods do"
    if config_data(cluster) is None:
        return ""
    if setting(cluster, _ENABLED) == "false":
        return f"no agent authenticates, as long as {_ENABLED} is false"
    if setting(cluster, _MUTUAL) != "true":
        return f"no agent authenticates by SPIRE, as long as {_MUTUAL} is not true"
    return ""
