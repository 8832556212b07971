"""A node: namespaces of its own with containerd and a kubelet in them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.cluster.config import ADMIN_CONFIG, BINARIES, HERE, STATE, Node
from tests.lab.cluster.image import images, node_image
from tests.lab.cluster.processes import run, start, wait_for

_MADE_FROM = STATE / "images/node.made-from"
"""The fingerprint of what the nodes' image of the node pod was made from."""


def up(node: Node) -> None:
    """Start the node; it registers itself with the API server."""
    node.state.mkdir(parents=True, exist_ok=True)
    _configuration(node)
    _cni(node)
    kubelet = [
        str(BINARIES / "kubelet"), f"--config={node.state}/kubelet.yaml",
        f"--kubeconfig={ADMIN_CONFIG}", f"--hostname-override={node.name}",
        f"--node-ip={node.address}", f"--root-dir={node.state}/kubelet",
        "--container-runtime=remote",
        f"--containerd={node.state}/containerd.sock",
        f"--container-runtime-endpoint=unix://{node.state}/containerd.sock",
        f"--cert-dir={node.state}/kubelet-pki",
    ]  # fmt: skip
    start(
        node.name,
        [
            "nsenter", f"--net=/run/netns/{node.netns}", "unshare", "--mount", "--uts", "--pid",
            "--fork", "--mount-proc", "--kill-child", "bash", str(HERE / "nodes/node-init.sh"),
            node.name, str(node.state), *kubelet,
        ],
        {
            "EBL_ROOT": str(HERE.parents[2]),
            "EBL_PYTHON": "/usr/bin/python3",
            # The kubelet would look for a cloud's metadata server.
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )  # fmt: skip


def load_images(nodes: Sequence[Node]) -> None:
    """Give nodes the lab's images, in parallel, then let their kubelets start.

    Raises:
        RuntimeError: an image cannot be built or imported.
        TimeoutError: a node's containerd does not come.
    """
    archives = images.build(STATE / "images")

    def load(node: Node) -> None:
        wait_for((node.state / "ready").exists, f"containerd of {node.name}", 60)
        for archive in archives:
            import_image(node, archive)
        (node.state / "images-loaded").touch()

    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(load, nodes))


def load_node_image(nodes: Sequence[Node]) -> None:
    """Make the node pod's image from this checkout and give it to running nodes, in parallel.

    Raises:
        RuntimeError: a step of the Dockerfile, or an import, failed.
    """
    made_from = node_image.fingerprint()
    archive = node_image.build(STATE / "images")
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda one: import_image(one, archive), nodes))
    _MADE_FROM.write_text(made_from)


def has_node_image() -> bool:
    """Whether the running nodes have the node pod's image of this checkout."""
    return _MADE_FROM.exists() and _MADE_FROM.read_text() == node_image.fingerprint()


def import_image(node: Node, archive: Path) -> None:
    """Give a running node an image. Raises RuntimeError where it takes none."""
    run(["ctr", "-a", f"{node.state}/containerd.sock", "-n", "k8s.io", "images", "import",
         str(archive)])  # fmt: skip


def _configuration(node: Node) -> None:
    (node.state / "containerd.toml").write_text(
        f"""version = 2
root = "{node.state}/containerd"
state = "{node.state}/containerd-run"
[grpc]
  address = "{node.state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.BARE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{node.state}/cni/bin"
    conf_dir = "{node.state}/cni/net.d"
"""
    )
    (node.state / "kubelet.yaml").write_text(
        f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
address: {node.address}
healthzBindAddress: {node.address}
syncFrequency: 1s
fileCheckFrequency: 5s
nodeStatusUpdateFrequency: 1s
nodeStatusReportFrequency: 1m
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}}
clusterDomain: cluster.local
volumePluginDir: {node.state}/volume-plugins
"""
    )


def _cni(node: Node) -> None:
    plugins, config = node.state / "cni/bin", node.state / "cni/net.d"
    plugins.mkdir(parents=True, exist_ok=True)
    config.mkdir(parents=True, exist_ok=True)
    shutil.copy("/usr/lib/cni/loopback", plugins / "loopback")
    launcher = plugins / "ebl-cni"
    root = HERE.parents[2]
    launcher.write_text(
        f'#!/bin/sh\nPYTHONPATH={root} exec /usr/bin/python3 -m tests.lab.cluster.nodes.cni "$@"\n'
    )
    launcher.chmod(0o755)
    (config / "10-ebl.conflist").write_text(
        f'{{"cniVersion": "0.4.0", "name": "ebl", "plugins": [{{"type": "ebl-cni", '
        f'"node": "{node.name}"}}]}}\n'
    )
