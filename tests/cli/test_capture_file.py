"""The name of the file that `capture` writes, and what is said of it."""

from __future__ import annotations

import re

import pytest

from kubectl_ebpfnet.cli.arguments import pod_or_node
from kubectl_ebpfnet.cli.capture_file import default_name, given, reader, summary
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.path.formats import NAMES


@pytest.mark.parametrize(
    ("context", "start"),
    [
        ("lab", "lab"),
        ("", "capture"),
        ("..", "capture"),
        ("arn:aws:eks:eu-west-1:123456789012:cluster/prod", "arn-aws-eks-eu-west-1-"),
        ("../../etc/passwd", "etc-passwd"),
        ("\x1b[2J-x\n", "2J-x"),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_context_becomes_a_name(context, start):
    name = default_name(context, redact=False)
    assert re.fullmatch(r"[A-Za-z0-9.-]+-\d{8}-\d{6}\.zip", name)
    assert name.startswith(start)
    assert not name.startswith((".", "-"))
    assert len(name) < 100


def test_a_redacted_capture_does_not_name_its_context():
    assert default_name("prod-of-acme", redact=True).startswith("capture-")


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (32_400, "32 KB"), (7_600_000, "8 MB")],
)
def test_what_was_written_and_how_it_is_read(size, shown):
    assert summary("my case.zip", 57, size, "pod/client …") == (
        f"wrote my case.zip (57 records, {shown}). "
        "Read it with: kubectl ebpfnet path pod/client … --from 'my case.zip'"
    )
    assert summary("-", 57, size, "…").startswith(f"wrote to stdout (57 records, {shown})")


@pytest.mark.parametrize(
    ("targets", "to", "namespace", "asked"),
    [
        ([], [], "shop", "…"),
        (["pod/client"], [], "default", "pod/client …"),
        (["pod/client", "node/n1", "pod/web"], [], "shop", "-n shop pod/client pod/web"),
        (["deploy/a"], ["svc/web:80", "1.1.1.1"], "default", "deploy/a svc/web:80"),
        (["node/n1"], ["https://x.y/?a=$(id)"], "shop", "node/n1 'https://x.y/?a=$(id)'"),
    ],
)
def test_the_question_that_the_file_answers(targets, to, namespace, asked):
    read = [pod_or_node(word, "capture") for word in targets]
    assert reader(read, to, namespace, redact=False) == asked
    assert reader(read, to, namespace, redact=True) == "…"


@pytest.mark.parametrize("word", [*(name for name in NAMES if "=" not in name), "name", "zip"])
def test_a_format_is_no_name_of_a_file(word):
    with pytest.raises(UsageError, match=f"^-o {word}: capture writes a zip") as refused:
        given(word, "")
    assert f"-o ./{word}" in refused.value.hint
    assert given(f"./{word}", "") == f"./{word}"


def test_a_template_is_no_name_of_a_file():
    with pytest.raises(UsageError, match=r"^-o jsonpath: "):
        given("jsonpath={.items[*].id}", "")
    assert given("name.zip", "") == "name.zip"
