"""What the tests ask the lab's API server for, in kubectl's words."""

from __future__ import annotations

import pytest

from tests.lab.cluster.control import api


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("pods -l app=web", "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb"),
        ("pod -n kube-system x", "/api/v1/namespaces/kube-system/pods/x"),
        ("node node1", "/api/v1/nodes/node1"),
        ("endpoints web", "/api/v1/namespaces/default/endpoints/web"),
        ("daemonset x -n y", "/apis/apps/v1/namespaces/y/daemonsets/x"),
        (
            "pods -A -l a=b --field-selector=spec.nodeName=n",
            "/api/v1/pods?labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn",
        ),
    ],
)
def test_where_kubectl_would_ask(words: str, path: str) -> None:
    assert api.path(*words.split()) == path
