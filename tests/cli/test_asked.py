"""Commands in answers and hints are for the cluster, or the capture, that was asked."""

from __future__ import annotations

import shlex

import pytest

from kubectl_ebpfnet.cli.asked import asked
from tests.cli.console import run

CLUSTER = {"context": "prod", "namespace": "shop"}
HINT = "another user may have run `kubectl ebpfnet cleanup`; or `kubectl get pods -n x` tells"


def test_commands_in_backticks_name_the_cluster() -> None:
    assert asked(CLUSTER).prose(HINT) == (
        "another user may have run `kubectl ebpfnet cleanup --context prod`; "
        "or `kubectl get --context prod pods -n x` tells"
    )
    for text in ("`path -o wide`, kubectl get pods", "`kubectl`", "`x kubectl get`"):
        assert asked(CLUSTER).prose(text) == text
    assert asked({"namespace": "shop"}).prose(HINT) == HINT


@pytest.mark.parametrize("choice", ["kubeconfig", "context", "cluster", "user", "server"])
def test_each_flag_that_chooses_a_cluster_is_named(choice: str) -> None:
    assert (
        asked({choice: "x y"}).command("kubectl get pods") == f"kubectl get --{choice} 'x y' pods"
    )


def test_no_secret_is_named() -> None:
    given = {"token": "t", "password": "p", "client_key": "k"}
    assert asked(given).command("kubectl get pods") == "kubectl get pods"


def test_a_captures_answer_is_asked_again_of_the_capture() -> None:
    of_capture = asked(CLUSTER, "my case.zip")
    command = of_capture.command("kubectl ebpfnet path pod/a pod/b")
    assert shlex.split(command)[2:] == ["path", "--from", "my case.zip", "pod/a", "pod/b"]
    edit = of_capture.command("kubectl edit svc web")
    assert edit == "kubectl edit --context prod svc web"
    again = asked({}, "-").command("kubectl ebpfnet path pod/a pod/b")  # stdin is at its end
    assert again == "kubectl ebpfnet path pod/a pod/b"
    live = asked({}, "demo").prose("`kubectl ebpfnet probe-lb svc/web` sends")
    assert live == "`kubectl ebpfnet probe-lb svc/web` sends"


def test_a_name_in_quotes_gets_no_word_that_ends_them() -> None:
    """`--context 'a b'` inside the quotes of a device's name would end them."""
    hostile = "`kubectl ebpfnet flows 'x``kubectl get;id`'` tells"
    assert asked({"context": "a b"}).prose(hostile) == hostile
    shown = asked({"context": "prod"}).prose(hostile).removeprefix("`").removesuffix("` tells")
    assert shlex.split(shown)[-1] == "x``kubectl get --context prod;id`"


def test_what_is_proposed_for_a_capture_reads_it() -> None:
    done = run("path", "pod/client", "web", "--from", "demo")
    (line,) = (line for line in done.stdout.splitlines() if "kubectl ebpfnet path" in line)
    assert line.strip() == "kubectl ebpfnet path --from demo -n default pod/client svc/web"
    assert "For the recorded cluster" not in done.stdout
    assert run(*line.split()[2:]).stdout.startswith("DELIVERED")
