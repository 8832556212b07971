"""`doctor`: check this user's rights and the nodes, and what each command can therefore see."""

from __future__ import annotations

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress, emit, view_of, width
from kubectl_ebpfnet.cli.with_flags import with_node_flags
from kubectl_ebpfnet.model.evidence import Bundle

BLIND = 3
TEXT = CommandText(
    usage="[flags]",
    summary="Check what each command can see of this cluster, and what it lacks.",
    description="""The connection, this user's rights, Cilium and how it is set up, every node with
its agent and node pod, and how much path, programs, flows and capture will
show of it: full, partial or blind. Nothing is deployed, except with
--node-access pod: that deploys and tries a node pod on every node.

--print-rbac[=TIER] contacts no cluster: it prints what to apply, and how to
bind it.

Exit codes: 0 path shows all or some of each node, 3 path would be blind on a
node that is Ready, 1 error, 2 usage.""",
    examples=(
        ("Of a recorded cluster, without one", "doctor --from demo"),
        ("Check rights and nodes", "doctor"),
        ("With every right, and problems in full", "doctor -o wide"),
        ("Check that node pods run on every node", "doctor --node-access pod"),
        ("As another user", "doctor --as jane"),
        ("Roles for who may only exec into Cilium's agents", "doctor --print-rbac=agents"),
    ),
    namespace="Namespace to check rights in",
)


@with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    output: flags.ListOutput = "table",
    capture: flags.Capture = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
    print_rbac: flags.PrintRbac = "",
) -> int:
    """Check what each command can see of this cluster."""
    if print_rbac:
        from kubectl_ebpfnet.render.doctor.rbac import rbac_text

        emit(rbac_text(print_rbac, "yaml" if output == "table" else output))
        return 0
    output = flags.report_output(output)
    view = view_of(width(), colored, global_flags.verbosity)
    limit = arguments.duration(timeout, "--timeout")
    with global_flags.progress() as progress:
        bundle = open_capture(capture) if capture else _read_cluster(global_flags, limit, progress)
        from kubectl_ebpfnet.explain.doctor.report import examine
        from kubectl_ebpfnet.model.doctor import Level
        from kubectl_ebpfnet.render.doctor.report import render

        report = examine(bundle)
        text = render(report, bundle, output, view)
    emit(text)
    return BLIND if report.verdict is Level.BLIND else 0


def _read_cluster(
    global_flags: flags.GlobalFlags, limit: float | None, progress: Progress
) -> Bundle:
    with connect(global_flags, progress) as (session, access):
        from kubectl_ebpfnet.collect.doctor import checkup

        return checkup(session, access, timeout=limit, warn=progress.warn, progress=progress.show)
