"""A real Kubernetes on this machine (docs/lab.md).

python -m tests.lab up                               bring it up; the last line of stdout is the
                                                     export of KUBECONFIG, all else goes to stderr
python -m tests.lab down                             take it away, all of it
python -m tests.lab status                           whether it is up, and where its kubeconfigs are
python -m tests.lab build                            only install and build what it needs
python -m tests.lab image                            make the node pod's image of this checkout and
                                                     give it to the running lab (4 s)
python -m tests.lab policy NAMESPACE/POD --allow-egress 80/TCP [53/UDP ...]
python -m tests.lab policy NAMESPACE/POD --clear     what a pod may reach
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.lab.cluster import build, lifecycle
from tests.lab.cluster.build import say
from tests.lab.cluster.config import ADMIN_CONFIG, NOBODY_CONFIG, NODES, SRE_CONFIG, STATE
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.image import node_image
from tests.lab.cluster.nodes import node


def _up() -> int:
    lifecycle.up()
    print(f"export KUBECONFIG={ADMIN_CONFIG}")
    return 0


def _down() -> int:
    lifecycle.down()
    return 0


def _build() -> int:
    build.packages()
    build.kubernetes()
    node_image.base()
    return 0


def _image() -> int:
    if not lifecycle.is_up():
        raise RuntimeError("the lab is not up")
    node.load_node_image(NODES)
    print(node_image.NAME)
    return 0


def _status() -> int:
    up = lifecycle.is_up()
    print("up" if up else "down")
    if up:
        print(f"admin {ADMIN_CONFIG}\nsre {SRE_CONFIG}\nnobody {NOBODY_CONFIG}")
    return 0 if up else 1


def _policy(words: list[str]) -> int:
    namespace, _, pod = words[0].partition("/")
    if words[1:] == ["--clear"]:
        policy.clear(namespace, pod)
    elif len(words) > 2 and words[1] == "--allow-egress":
        policy.allow_egress(namespace, pod, *map(policy.Allowed.parse, words[2:]))
    else:
        return _usage()
    return 0


def _usage() -> int:
    print(__doc__, file=sys.stderr)
    return 2


def main(words: list[str]) -> int:
    """Run one command. Exit code 1 when it failed or the lab is down, 2 for words that are none."""
    commands = {"up": _up, "down": _down, "build": _build, "status": _status, "image": _image}
    begun = time.monotonic()
    try:
        if words[:1] == ["policy"] and len(words) > 2:
            return _policy(words[1:])
        if len(words) != 1 or words[0] not in commands:
            return _usage()
        code = commands[words[0]]()
    except (OSError, RuntimeError, LookupError, ValueError, subprocess.SubprocessError) as error:
        say(f"{' '.join(words)}: {error}")
        say(f"logs are in {STATE}/logs and {STATE}/NODE/*.log")
        return 1
    if words[0] != "status":
        say(f"{words[0]} took {time.monotonic() - begun:.1f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
