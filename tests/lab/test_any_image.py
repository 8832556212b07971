"""Node pods from images that have nothing of ours, and node pods that somebody installed.

The images are Debian's (cluster/image/plain_python.py): they stand for `python:3.11-slim` and
`python:3.13-slim`, which cannot be pulled here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol.node_side import own_digest
from tests.lab.cluster.config import NODES
from tests.lab.cluster.image import images, plain_python
from tests.lab.cluster.nodes.node import import_image
from tests.lab.cluster.tools.live import objects
from tests.lab.conftest import Lab, wait_until
from tests.lab.test_path_users import EXECS, READER, role

pytestmark = [pytest.mark.timeout(240)]
EXEC_ALONE = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}, *EXECS]
API = ("172.30.0.1", "6443")


def netkat(lab: Lab, *flags: str) -> tuple[float, int, str]:
    """Connect to the API server from node1; seconds, exit code and what it said."""
    begun = time.monotonic()
    done = lab.kubectl("ebpfnet", "netkat", *flags, "node/node1", "-z", *API, timeout=120)
    return time.monotonic() - begun, done.returncode, done.stderr


def test_a_plain_python_will_do(our_lab: Lab, tmp_path: Path) -> None:
    wanted = {plain_python.DEBIAN_12: plain_python.debian_12(tmp_path)}
    newer = plain_python.debian_13(tmp_path)
    if newer is not None:
        wanted[plain_python.DEBIAN_13] = newer
    took = {"ours": min(netkat(our_lab)[0] for _ in range(2))}
    for image, archive in wanted.items():
        import_image(NODES[0], archive)
        runs = [netkat(our_lab, "--image", image) for _ in range(2)]
        assert [code for _, code, _ in runs] == [0, 0], runs
        took[image] = min(seconds for seconds, _, _ in runs)
    for image, seconds in took.items():
        print(f"{image}: {seconds:.2f} s, {seconds - took['ours']:+.2f} s")


def test_an_image_without_python_is_told_in_a_sentence(our_lab: Lab) -> None:
    seconds, code, said = netkat(our_lab, "--image", images.BARE)
    assert code == 1
    assert f"the image {images.BARE} has no python3; the node side needs 3.11 or later" in said
    assert "--image python:3.13-slim" in said
    assert seconds < 30


def test_a_node_pod_that_is_installed_is_used_by_all_and_stays(
    our_lab: Lab, tmp_path: Path
) -> None:
    """From a plain image: the first command brings what is needed, the next one finds it."""
    import_image(NODES[0], plain_python.debian_12(tmp_path))
    printed = our_lab.kubectl(
        "ebpfnet", "node-pods", "--print-manifest", "node/node1",
        "--image", plain_python.DEBIAN_12,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    assert our_lab.kubectl("apply", "-f", "-", stdin=printed.stdout).returncode == 0
    try:
        wait_until(lambda: listed(our_lab)["status"] == "Running", 60)
        for _ in range(2):
            _, code, said = netkat(our_lab)
            assert (code, said) == (0, "")  # nothing was deployed
        answer = our_lab.kubectl(
            "ebpfnet", "path", "node/node1", "172.30.0.2", "-o", "json", "--timeout", "60s"
        )
        assert "deploying" not in answer.stderr
        with objects(our_lab, *role("e2e-exec-alone", EXEC_ALONE, "ebpfnet")):
            can = ("auth", "can-i", "create", "pods", "--subresource=exec")
            may = (*can, "--as", READER, "-n", "ebpfnet")
            wait_until(lambda: our_lab.kubectl(*may).returncode == 0)
            _, code, said = netkat(our_lab, "--as", READER)
            assert (code, said) == (0, "")
        shell = our_lab.kubectl(
            "exec", "-n", "ebpfnet", "ebpfnet-node1", "--",
            "netkat", "-z", *API,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stderr
        cleaned = our_lab.kubectl("ebpfnet", "cleanup", "--yes")
        assert "left alone: 1 installed node pods" in cleaned.stderr
        pod = listed(our_lab)
        assert (pod["origin"], pod["status"], pod["problem"]) == ("installed", "Running", "")
        version = json.loads(our_lab.kubectl("ebpfnet", "version", "-o", "json").stdout)
        assert version["node_side"] == {"digest": own_digest()}
    finally:
        our_lab.kubectl("delete", "-f", "-", "--wait=false", stdin=printed.stdout)


def listed(lab: Lab) -> dict[str, str]:
    """The installed node pod, as `node-pods` lists it."""
    document = json.loads(lab.kubectl("ebpfnet", "node-pods", "-o", "json").stdout)
    found = [item for item in document["items"] if item["origin"] == "installed"]
    return found[0] if found else {"status": ""}
