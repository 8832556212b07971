"""A run whose API server is busy, whose token expires in the middle, or that is too old for slices.

A recorded cluster behind the fake API server answers. A real one: tests/lab/faults.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.errors import ApiUnreachable
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest, Verdict
from tests.cluster.fake_api_server import Reply, Seen, status_reply
from tests.collect.conftest import Opened
from tests.collect.looking import looked

TO_WEB = PathRequest(
    "pod/client", "default", "client", "svc/web", "service", TCP,
    destination_namespace="default", destination_name="web", port=80,
)  # fmt: skip
EXPIRED = status_reply(401, "Unauthorized", "Unauthorized")


def test_a_token_that_expires_before_the_agents_are_asked(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.fake.exec_refusal = lambda _: EXPIRED
    request, bundle = looked(session, TO_WEB, timeout=20)
    assert explain(request, bundle).verdict is Verdict.UNKNOWN
    reasons = {record.error for record in bundle.records if not record.ran}
    assert reasons
    assert all("does not accept these credentials (401)" in reason for reason in reasons), reasons


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_costs_no_more_than_the_timeout(
    cluster: Opened, status: int
) -> None:
    session, replay = cluster("vxlan-kpr")

    def busy(_: Seen) -> Reply:
        return Reply(status, b"busy", {"Retry-After": "60"})

    replay.answer = busy  # type: ignore[method-assign]
    begun = time.monotonic()
    with pytest.raises(ApiUnreachable, match="no answer within the 1 s that --timeout allows"):
        looked(session, TO_WEB, access=NodeAccess(Mode.AUTO), timeout=1)
    assert time.monotonic() - begun < 3


def test_a_server_that_is_busy_for_a_moment_changes_no_answer(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    calm = explain(*looked(session, TO_WEB, timeout=20))
    real, met = replay.answer, set()

    def busy_once(seen: Seen) -> Reply:
        if seen.path in met:
            return real(seen)
        met.add(seen.path)
        return Reply(429, b"busy", {"Retry-After": "0"})

    replay.answer = busy_once  # type: ignore[method-assign]
    path = explain(*looked(session, TO_WEB, timeout=20))
    assert met
    assert (path.verdict, path.reason) == (calm.verdict, calm.reason)


@pytest.mark.parametrize("hours", [2, -2])
def test_records_bear_the_time_of_the_server_and_a_clock_that_is_wrong_is_named(
    cluster: Opened, hours: int
) -> None:
    """Objects and Hubble's flows are dated by the cluster, and compared with records."""
    session, replay = cluster("vxlan-kpr")
    replay.fake.ahead = hours * 3600.0
    said: list[str] = []
    _, bundle = looked(session, TO_WEB, timeout=20, warn=said.append)
    times = {record.started for record in bundle.records if record.started}
    now = datetime.now(UTC) + timedelta(hours=hours)
    assert times
    assert all(abs(datetime.fromisoformat(one) - now) < timedelta(seconds=60) for one in times)
    how = "behind" if hours > 0 else "ahead of"
    assert said == [
        f"this machine's clock is 2 h 0 min {how} the API server's; the server's counts"
    ]


def test_a_server_without_endpoint_slices_is_no_service_without_endpoints(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    calm = explain(*looked(session, TO_WEB, timeout=20))
    real = replay.answer

    def old(seen: Seen) -> Reply:
        if "/discovery.k8s.io/" in seen.path:
            return Reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        return real(seen)

    replay.answer = old  # type: ignore[method-assign]
    request, bundle = looked(session, TO_WEB, timeout=20)
    path = explain(request, bundle)
    # Cilium's own map has the backends: the answer is the same.
    assert path.verdict is calm.verdict
    unread = [record.error for record in bundle.records if "endpointslices" in record.argv]
    assert set(unread) == {'resource "endpointslices.discovery.k8s.io" not found'}
    assert "endpoint" not in path.reason
