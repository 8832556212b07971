"""A FAKE cluster: a scenario behind the fake API server of tests/cluster.

Objects come from the scenario's API records. An exec runs the real argv, batch script and all, in
a real shell of this machine, whose PATH begins with programs that print what the scenario
recorded for exactly these words, and otherwise fail. The shell sees no device of this machine: the
devices of a place are those that `tc` was asked about there. It sees none of its sysctls and
sockets either.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import API, Bundle, Place, agent_place, pod_place
from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, Reply, Seen, exited, status_reply

SCENARIOS = Path(__file__).parent.parent / "scenarios"
DEVICES = "/sys/class/net"
SYSCTLS = "/proc/sys/net"
SOCKETS = ("/proc/net/tcp", "/proc/net/udp", "/proc/net/protocols")
SEPARATOR = "\x1f"
PROGRAM = rf"""#!/bin/sh
# What was recorded of this program at this place: a case for each command line.
[ "${{0##*/}}$#" = cat0 ] && exec /bin/cat  # the script's own
case $HANGS${{0##*/}}\ $1 in yescilium*\ bpf) ;; yescilium*) exec /bin/sleep 60;; esac
IFS='{SEPARATOR}'
[ -e "$REPLAY/${{0##*/}}" ] && . "$REPLAY/${{0##*/}}"
echo "${{0##*/}}: nothing is recorded of this" >&2
exit 1
"""
MISSING = {
    "metadata": {},
    "status": "Failure",
    "reason": "InternalError",
    "message": 'error executing command in container: exec: "{0}": executable file not found in '
    "$PATH: unknown",
    "code": 500,
}


class ReplayCluster:
    """See the module. Tests change `objects`, `refused` and `before` to break it."""

    def __init__(self, fake: FakeApiServer, folder: Path, scenario: str) -> None:
        self.bundle: Bundle = open_bundle(SCENARIOS / scenario)
        self.folder = folder
        self.lock = threading.Lock()
        self.fake = fake
        self.objects: list[dict[str, Any]] = []
        self.refused: set[str] = set()  # resources that this user may not read
        self.also: dict[tuple[str, ...], bytes] = {}  # what more is printed, at every place
        self.at: dict[Place, dict[tuple[str, ...], bytes]] = {}  # what a place prints instead
        self.fails: dict[tuple[str, ...], tuple[bytes, int]] = {}  # stderr and exit code
        self.hangs: set[str] = set()  # nodes whose agent is stopped: `bpf` commands answer
        self.sockets: dict[str, dict[str, str]] = {}  # pod → name in /proc/net → what it says
        self.images: dict[str, set[str]] = {}  # pod → programs it has; absent: all
        self.before: Callable[[ExecEnd, str], bool] = lambda end, pod: False
        self.execs: list[tuple[str, str, list[str]]] = []
        for record in self.bundle.records:
            if record.place == API:
                value = json.loads(record.stdout.read() or b"{}")
                self.objects += value.get("items", [value] if "kind" in value else [])
        for each in self.objects:
            for status in each.get("status", {}).get("containerStatuses", []):
                status["state"] = {"running": {}}
        self._programs()
        fake.routes = _Routes(self)  # type: ignore[assignment]
        fake.program = self.run

    def _programs(self) -> None:
        (self.folder / "bin").mkdir()
        names = {r.argv[0] for r in self.bundle.records} | {
            "getent",
            "nslookup",
            "tc",
            "conntrack",
            "route",
        }
        names |= {f[0] for f in (*q.POD_NEIGHBOURS.forms, *q.NETFILTER.forms, *q.STATUS.forms)}
        for name in names - {"get", "sh"}:
            file = self.folder / "bin" / name
            file.write_text(PROGRAM)
            file.chmod(0o755)

    def pod(self, name: str) -> dict[str, Any]:
        """A pod object, to be changed."""
        return self.named("Pod", name)

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """An object, to be changed."""
        return next(o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))

    def place_of(self, namespace: str, pod: str) -> Place:
        found = self.pod(pod)
        if found["metadata"].get("labels", {}).get("k8s-app") == "cilium":
            return agent_place(found["spec"]["nodeName"])
        return pod_place(namespace, pod)

    def run(self, end: ExecEnd) -> None:
        """What the kubelet does."""
        namespace, pod = end.seen.path.split("/")[4], end.seen.path.split("/")[6]
        self.execs.append((namespace, pod, end.argv))
        script = end.script()
        if self.before(end, pod):
            return
        programs = self.images.get(pod)
        if programs is not None and end.argv[0] not in programs:
            end.end({**MISSING, "message": MISSING["message"].format(end.argv[0])})  # type: ignore[attr-defined]
            return
        place = self.place_of(namespace, pod)
        with self.lock:
            recorded = self.folder / f"{namespace}-{pod}"
            if not recorded.exists():
                self._write(place, recorded)
                (recorded / "proc/net").mkdir(parents=True)
                for file, text in self.sockets.get(pod, {}).items():
                    (recorded / "proc/net" / file).write_text(text)
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        devices = f"{recorded}{DEVICES}/*"
        stdin = script and script.replace(f"{DEVICES}/*".encode(), devices.encode())
        hidden = (SYSCTLS, *SOCKETS)
        argv = [f"{recorded}{w}" if w.startswith(hidden) else w for w in end.argv]
        env = {"PATH": path, "REPLAY": str(recorded)}
        env["HANGS"] = "yes" if place.node in self.hangs else ""
        done = subprocess.run(argv, input=stdin, capture_output=True, env=env, timeout=60)
        for channel, data in ((1, done.stdout), (2, done.stderr)):
            for at in range(0, len(data), 30_000):
                end.write(channel, data[at : at + 30_000])
        end.end(exited(done.returncode))

    def _write(self, place: Place, folder: Path) -> None:
        """Two files a command, and a file a program that tells them apart by its words."""
        folder.mkdir()
        said = {
            r.argv: (r.stdout.read(), r.stderr, r.exit_code or 0) for r in self.bundle.at(place)
        }
        recorded = next((said[argv] for argv in q.LINKS.answers if argv in said), None)
        if recorded is not None:  # it may have been recorded without counters
            said.setdefault(q.LINKS.forms[0], recorded)
        said |= {argv: (out, b"", 0) for argv, out in self.also.items()}
        said |= {argv: (out, b"", 0) for argv, out in self.at.get(place, {}).items()}
        said |= {argv: (b"", err, code) for argv, (err, code) in self.fails.items()}
        for argv in said:
            if argv[:4] == ("tc", "filter", "show", "dev"):
                Path(f"{folder}{DEVICES}", argv[4]).mkdir(parents=True, exist_ok=True)
        cases: dict[str, list[str]] = {}
        for number, ((program, *words), (out, err, code)) in enumerate(said.items()):
            files = folder / f"{number}.out", folder / f"{number}.err"
            for file, data in zip(files, (out, err), strict=True):
                file.write_bytes(data)
            prints = "/bin/cat {}; /bin/cat {} >&2".format(*(quote(str(file)) for file in files))
            cases.setdefault(program, []).append(
                f"{quote(SEPARATOR.join(words))}) {prints}; exit {code};;\n"
            )
        for program, lines in cases.items():
            (folder / program).write_text(f'case "$*" in\n{"".join(lines)}esac\n')

    def answer(self, seen: Seen) -> Reply:
        """What the API server does."""
        words = seen.path.split("/")
        words = words[3:] if words[1] == "api" else words[4:]
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        resource, name = words[0], words[1] if len(words) > 1 else ""
        if resource in self.refused:
            return status_reply(403, "Forbidden", f'User "u" cannot list resource "{resource}"')
        found = [
            o
            for o in self.objects
            if _plural(o["kind"]) == resource
            and (not namespace or o["metadata"].get("namespace") == namespace)
            and all(_selected(o, *p.split("=")) for p in seen.parameters("labelSelector"))
            and all(_has_field(o, *p.split("=")) for p in seen.parameters("fieldSelector"))
        ]
        if name:
            named = [o for o in found if o["metadata"]["name"] == name]
            return Reply(200, named[0]) if named else status_reply(404, "NotFound", "not found")
        return Reply(200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found})


class _Routes:
    def __init__(self, cluster: ReplayCluster) -> None:
        self._cluster = cluster

    def get(self, _: str) -> Callable[[Seen], Reply]:
        return self._cluster.answer


def _plural(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith("y"):
        return lower[:-1] + "ies"
    return lower + ("es" if lower.endswith("s") else "s")


def _has_field(value: dict[str, Any], field: str, wanted: str) -> bool:
    part, name = field.split(".")
    return bool(value.get(part, {}).get(name) == wanted)


def _selected(value: dict[str, Any], key: str, label: str) -> bool:
    return bool(value["metadata"].get("labels", {}).get(key) == label)
