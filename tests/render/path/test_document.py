"""The JSON document against the shape that docs/json.md promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_ebpfnet.model import path as model
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View
from tests.render.path import sample_paths as sample

DOCS = Path(__file__).parents[3] / "docs" / "json.md"

Text, Number, Truth = str, int, bool
NULL = type(None)
FLOW = {
    "protocol": Text,
    "source": Text,
    "source_port": (Number, NULL),
    "destination": Text,
    "destination_port": (Number, NULL),
}
OUTSIDE: dict[str, Any] = {
    "why": Text,
    "shown": Text,
    "closed": [{"node": Text, "why": Text}],
    "left_out": Number,
    "more_closed": Number,
}
EVIDENCE = [{"record": Number, "lines": [Number], "excerpt": [Text]}]
TARGET = {
    "text": Text,
    "kind": {"pod", "service", "node", "address", "name"},
    "namespace": Text,
    "name": Text,
    "address": (Text, NULL),
    "port": (Number, NULL),
    "node": Text,
    "note": Text,
}
HOPS = [
    {
        "number": Number,
        "place": set(model.HopPlace),
        "where": Text,
        "node": Text,
        "kind": set(model.HopKind),
        "summary": Text,
        "state": set(model.State),
        "reason?": Text,
        "short?": Text,
        "drops": Truth,
        "packet": {**FLOW, "outer?": FLOW, "vni?": Number, "mark?": Number},
        "evidence": EVIDENCE,
    }
]
MTU = {
    "fits": (Number, NULL),
    "limited_by": Text,
    "node": Text,
    "pod": (Number, NULL),
    "larger": (Text, NULL),
    "missing": [Text],
    "back": (dict, NULL),
}
SHAPE: dict[str, Any] = {
    "schema": {"ebpfnet.dev/path/v2"},
    "source": TARGET,
    "destination": TARGET,
    "protocol": Text,
    "verdict": set(model.Verdict),
    "reason": Text,
    "hops": HOPS,
    "findings": [
        {
            "severity": set(model.Severity),
            "title": Text,
            "detail": Text,
            "evidence": EVIDENCE,
            "decides": Truth,
        }
    ],
    "flows": [
        {
            "node": Text,
            "flow": FLOW,
            "cilium_ct": (dict, NULL),
            "service_ct": (dict, NULL),
            "cilium_nat": (dict, NULL),
            "netfilter": (dict, NULL),
            "translated": FLOW,
            "evidence": EVIDENCE,
            "error_ct": (dict, NULL),
            "last_seen": {
                "sent": (float, NULL),
                "answered": (float, NULL),
                "reason": Text,
            },
            "outcome": set(model.Outcome),
        }
    ],
    "because": [Text],
    "seen": [Text],
    "cause": Text,
    "fix": ({"text": Text, "command": Text}, NULL),
    "contradictions": [{"text": Text, "evidence": EVIDENCE}],
    "drop": (
        {
            "how": {"seen", "derived"},
            "hop": Number,
            "node": Text,
            "by": Text,
            "object": Text,
            "direction": set(model.Direction),
            "short": Text,
        },
        NULL,
    ),
    "answer": (
        {
            "state": set(model.Return),
            "reason": Text,
            "asymmetric": Truth,
            "way": Text,
            "hops": HOPS,
        },
        NULL,
    ),
    "attempt": (
        {
            "outcome": set(model.Outcome),
            "age": (float, Number, NULL),
            "text": Text,
            "node": Text,
            "flow": FLOW,
            "evidence": EVIDENCE,
        },
        NULL,
    ),
    "mtu": (MTU, NULL),
    "presumed": [Text],
    "outside": (OUTSIDE, NULL),
    "tracking": [{"node": Text, "table": Text, "text": Text, "evidence": EVIDENCE}],
    "records": [
        {
            "number": Number,
            "place": {"kind": Text, "node": Text, "namespace": Text, "pod": Text},
            "argv": [Text],
            "exit_code": (Number, NULL),
            "started": Text,
            "error": Text,
        }
    ],
    "bundle": {"source": Text, "note": Text},
}
OUTSIDE["entries"] = [
    {
        "node": Text,
        "destination": TARGET,
        "hops": HOPS,
        **{
            key: SHAPE[key]
            for key in (
                "verdict", "reason", "because", "seen", "cause", "fix", "contradictions", "drop",
                "attempt", "answer", "mtu", "presumed",
            )
        },
    }
]  # fmt: skip


def check(value: Any, shape: Any, at: str = "$") -> None:
    if isinstance(shape, dict):
        assert isinstance(value, dict), at
        wanted = {key.rstrip("?") for key in shape}
        needed = {key for key in shape if not key.endswith("?")}
        assert needed <= set(value) <= wanted, at
        for key, item in value.items():
            check(item, shape.get(key, shape.get(f"{key}?")), f"{at}.{key}")
    elif isinstance(shape, tuple) and isinstance(shape[0], dict):
        if value is not None:
            check(value, shape[0], at)
    elif isinstance(shape, list):
        assert isinstance(value, list), at
        for i, item in enumerate(value):
            check(item, shape[0], f"{at}[{i}]")
    elif isinstance(shape, set):
        assert value in {str(word) for word in shape}, at
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        assert type(value) in kinds, at


@pytest.mark.parametrize(
    "answer", [sample.delivered, sample.dropped, sample.empty, sample.outside, sample.hostile]
)
def test_shape(answer):
    text = render(answer(), sample.bundle(), "json", View())
    check(json.loads(text), SHAPE)
    assert text.endswith("}\n")


def test_a_hop():
    document = json.loads(render(sample.delivered(), sample.bundle(), "json", View()))
    hop = document["hops"][3]
    assert hop["number"] == 4
    assert hop["packet"]["source"] == "172.30.0.12"
    assert hop["packet"]["mark"] == 0x200
    assert [e["record"] for e in hop["evidence"]] == [2, 1]


def test_records_are_those_that_evidence_points_at():
    document = json.loads(render(sample.delivered(), sample.bundle(), "json", View()))
    assert [r["number"] for r in document["records"]] == [1, 2, 4]
    assert document["records"][2]["error"] == "tc is not in this image"


def test_yaml_says_the_same():
    for answer in (sample.delivered(), sample.dropped(), sample.empty()):
        assert yaml.safe_load(render(answer, sample.bundle(), "yaml", View())) == json.loads(
            render(answer, sample.bundle(), "json", View())
        )


def keys(shape: Any) -> set[str]:
    if isinstance(shape, dict):
        return {k.rstrip("?") for k in shape}.union(*(keys(v) for v in shape.values()))
    if isinstance(shape, tuple):
        return keys(shape[0])
    return keys(shape[0]) if isinstance(shape, list) else set()


def test_the_document_tells_every_key_and_every_word():
    told = set(re.findall(r"`([^`\n]+)`", DOCS.read_text(encoding="utf-8")))
    assert keys(SHAPE) <= told
    for words in (
        model.Verdict,
        model.Outcome,
        model.State,
        model.HopPlace,
        model.HopKind,
        model.Severity,
        model.Larger,
    ):
        assert {str(word) for word in words} <= told


def test_the_documents_example_has_the_shape():
    example = re.search(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    assert example is not None
    check(json.loads(example.group(1)), SHAPE)
