"""`trace`: the packets themselves, at every place that they pass."""

from __future__ import annotations

from kubectl_ebpfnet.cli import flags, trace_answer
from kubectl_ebpfnet.cli import trace_arguments as words
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.with_flags import with_trace_flags

TEXT = CommandText(
    usage="SOURCE DESTINATION[:PORT] | --drops TARGET [flags]",
    summary="Follow packets as they pass, on every node of their way.",
    description="""A line for each place that a packet of this flow, or an answer, passes: through
namespaces, devices, translation and tunnels, on every node that `path` says it
passes; where it is dropped, the kernel's reason and function. At the end the
verdict, what was seen of path's hops, and where reality left the tables.

--send sends the packets itself, from the pod's network namespace; the pod's
image needs nothing. Otherwise the trace waits for the pod's own.

BPF programs are loaded on these nodes for the time of the trace, from node
pods, and are gone with it. You are asked before. Ctrl-C ends it.

Exit codes: 0 delivered, reachable or leaves, 1 error, 2 usage, 3 dropped,
4 unknown, or events were lost.""",
    examples=(
        ("Send a TCP SYN, and follow it and its answer", "trace pod/client 1.1.1.1:80 --send"),
        ("Three pings to a Service's pod", "trace pod/client pod/web --send -c 3 --protocol icmp"),
        ("What the pod itself sends, for a minute", "trace pod/client svc/web:80 --for 1m"),
        ("For Wireshark", "trace pod/client svc/web:80 -o pcapng > trace.pcapng"),
        ("From a network namespace of no pod", "trace pid/4711@node/n1 1.1.1.1:80 --send"),
        ("All that a pod loses, with reason and place", "trace --drops pod/client"),
        ("Each event as a line of JSON", "trace pod/client 1.1.1.1:80 --send -o events"),
    ),
    namespace="Namespace of the source",
    evidence=False,
)


@with_trace_flags
def run(
    global_flags: flags.GlobalFlags,
    source: flags.Source = "",
    destination: flags.Destination = "",
    output: words.Output = "table",
    send: words.Send = False,
    count: words.Count = "",
    interval: words.Interval = "1s",
    payload: words.Payload = "",
    size: words.Size = "",
    seconds: words.For = "30s",
    drops: words.Drops = "",
    protocol: flags.Protocol = "",
    ipv4: flags.Ipv4 = False,
    ipv6: flags.Ipv6 = False,
    to_namespace: flags.ToNamespace = "",
    capture: flags.Capture = "",
    save: words.Save = "",
    snaplen: words.Snaplen = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "60s",
) -> int:
    asked = words.asked(
        source, destination, drops, protocol, to_namespace, ipv4=ipv4, ipv6=ipv6
    )  # fmt: skip
    until = words.limits(count, interval, payload, size, seconds, timeout, snaplen, send=send)
    shown = words.how(output, colored, global_flags.verbosity, capture, save)
    return trace_answer.answered(asked, until, shown, global_flags, timeout)
