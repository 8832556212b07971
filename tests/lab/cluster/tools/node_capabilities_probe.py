"""Runs in a node pod: asks the node side everything, prints what came of it as one JSON object.

    python3 -c THIS_FILE '{"node": null, "pod": [UID, [CONTAINER, …]]}'

A question of each namespace (`pod: links`) has its exit code, its error and its stdout.
"""

import json
import sys

from kubectl_ebpfnet.model.protocol.questions import (
    HOST_PROGRAMS,
    NodeRequest,
    PodNamespace,
    node_argv,
)
from kubectl_ebpfnet.node.server.answer import whole_answer
from kubectl_ebpfnet.node.server.registry import FUNCTIONS

found = {}
for place, pod in json.loads(sys.argv[1]).items():
    netns = None if pod is None else PodNamespace(pod[0], tuple(pod[1]))
    words = {"fib": ["1.1.1.1"], "forward": ["1.1.1.1"], "snat-use": ["6", "1.1.1.1", "80"]}
    argvs = {name: node_argv(name, *words.get(name, ())) for name in FUNCTIONS}
    del argvs["probe"]  # sends, and needs to know where to
    argvs |= {one[0]: one for one in HOST_PROGRAMS}
    if netns is None:
        del argvs["forward"]  # of pods alone
    for name, argv in argvs.items():
        answer = whole_answer(NodeRequest(1, argv, netns))
        text = answer.stdout.decode("utf-8", "replace")
        found[f"{place}: {name}"] = [answer.exit_code, answer.error, text]
print(json.dumps(found))
