"""`path`: show every hop of a packet, with its evidence."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from kubectl_ebpfnet.cli import flags, path_arguments
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.with_flags import with_node_flags
from kubectl_ebpfnet.render.path.formats import NAMES

TEXT = CommandText(
    usage="SOURCE DESTINATION[:PORT][/PROTOCOL] [flags]",
    summary="Show every hop of a packet, and the proof of each hop.",
    description="""The answer starts with the verdict and what decides it; then why, what a record
shows, and what to do. Then come the hops, a line each by place, marked: seen,
follows from tables, not known, dropped; the way back of the answer, and the
flows that are tracked. -v shows the proof of each hop, the largest packet that
fits, and what was not read; -o wide ids, tags and the records' numbers. From a
client outside: a verdict for each node that it may enter by, and one of all. No
packet is sent, but a pod's DNS query for a name. Where no Cilium agent answers,
a node pod is deployed for the run, if you say so (--node-access).

Exit codes: 0 delivered, reachable or leaves, 1 error, 2 usage, 3 dropped,
4 unknown.""",
    examples=(
        ("Of a recorded cluster, without one", "path pod/client 1.1.1.1:80 --from demo"),
        ("A recorded drop, and why", "path pod/client 1.1.1.1:7777 --from demo:dropped"),
        ("From a pod to an address outside of the cluster", "path pod/client 1.1.1.1:80"),
        ("To a Service, by the name of its port", "path pod/client svc/web:http"),
        ("To another namespace", "path -n shop deploy/cart pod/db-0:5432 --to-namespace data"),
        ("From a node, as kubelet's probes", "path node/worker-1 pod/web:8080"),
        ("Do customers outside reach a Service?", "path 203.0.113.9 svc/web"),
        ("The same, entering by one node", "path 203.0.113.9 svc/web --via node/worker-1"),
        ("The same with the lines that prove each hop", "path pod/client 1.1.1.1:80 -v"),
        ("Does DNS get out? For a script", "path pod/client 10.0.0.53:53/udp -o json"),
        ("Do full packets get through, without a fragment?", "path pod/client svc/web --size 1500"),
        ("Each pod of a workload: which one is lost?", "path deploy/cart svc/db --all-pods"),
        ("What changes during a rollout or a policy's edit", "path deploy/cart svc/db -w"),
        ("From a file that a colleague captured", "path pod/client 1.1.1.1:80 --from case.zip"),
    ),
    namespace="Namespace of the source",
)


@with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    source: flags.Source = "",
    destination: flags.Destination = "",
    output: Annotated[
        str, Option("-o", "--output", metavar="FORMAT", help=f"One of: {', '.join(NAMES)}")
    ] = "table",
    protocol: flags.Protocol = "",
    ipv4: flags.Ipv4 = False,
    ipv6: flags.Ipv6 = False,
    size: flags.Size = "",
    via: flags.Via = "",
    to_namespace: flags.ToNamespace = "",
    selector: path_arguments.Selector = "",
    all_pods: path_arguments.AllPods = False,
    capture: flags.Capture = "",
    watch: flags.Watch = False,
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
) -> int:
    question = path_arguments.question(
        source, destination, protocol, to_namespace, ipv4=ipv4, ipv6=ipv6, size=size, via=via,
        selector=selector, all_pods=all_pods,
    )  # fmt: skip
    shown = path_arguments.shown(output, colored, global_flags.verbosity, watch=watch)
    return path_arguments.answered(question, shown, capture, global_flags, timeout)
