"""A Service whose selector matches no pod: the pods that it may have meant are read, and few."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.collect import destination
from kubectl_ebpfnet.model.kube import Service, ServicePort
from kubectl_ebpfnet.model.net import TCP

SERVICE = Service(
    "shop", "web", "ClusterIP", (), (ServicePort("", TCP, 80, "8080"),), selector=(("app", "web"),)
)


class FakeApi:
    """Has the pods that each selector finds, and notes what was asked."""

    def __init__(self, **found: list[dict[str, Any]]) -> None:
        self.found = found
        self.asked: list[tuple[str, str, int | None]] = []

    def endpoint_slices(self, namespace: str, name: str) -> list[Any]:
        return []

    def pods(self, namespace: str, *, label_selector: str = "") -> list[Any]:
        return self.found.get("matching", [])

    def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "",
        limit: int = 500, first_page: bool = False,
    ) -> list[Any]:  # fmt: skip
        self.asked.append((label_selector, field_selector, limit if first_page else None))
        return self.found.get("alike" if label_selector else "running", [])


def asked(api: FakeApi) -> list[tuple[str, str, int | None]]:
    destination.far_end_of_object(api, SERVICE, None)  # type: ignore[arg-type]
    return api.asked


def test_nothing_more_is_asked_where_pods_match() -> None:
    assert asked(FakeApi(matching=[{"metadata": {"name": "web"}}])) == []


def test_those_with_the_key_come_first() -> None:
    assert asked(FakeApi(alike=[{}])) == [("app", "", destination.NEAREST)]


def test_any_that_run_come_next() -> None:
    found = asked(FakeApi())
    assert found[1:] == [("", "status.phase=Running", destination.NEAREST)]
