"""Run `trace`: follow what nodes and agents tell, as it comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubectl_ebpfnet.active.notices import Monitors, NoticeLine, agents_on
from kubectl_ebpfnet.active.trace import NodeLine, Sessions, containers_on
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.cli.trace_plan import Limits, Plan
from kubectl_ebpfnet.cli.trace_run import Held, Printed, answer_of, follow, nothing_told, notice_in
from kubectl_ebpfnet.collect.ask.access import Mode
from kubectl_ebpfnet.collect.ask.unasked import unavailable_record
from kubectl_ebpfnet.explain.trace.answer import Told
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.trace import Trace

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.exec.target import Container
    from kubectl_ebpfnet.collect.gatherer import Gatherer

LINGER_SECONDS = 0.5
"""How long to look on after the last packet's outcome, for what is still on its way."""
_READY_SECONDS = 15.0
_LATER_SECONDS = 0.6
"""Longer than a packet is held (trace_run.py)."""


def watch(
    gatherer: Gatherer,
    plan: Plan,
    bundle: Bundle,
    limits: Limits,
    printed: Printed,
    progress: Progress,
    mode: Mode = Mode.AUTO,
) -> tuple[Trace, Bundle]:
    """Watch until the limits or an interrupt; return the answer, and all records.

    Args:
        gatherer: the cluster.
        plan: what is watched where.
        bundle: what was read before.
        limits: when it ends.
        printed: takes what is seen, as it comes.
        progress: says what is going on.
        mode: AGENT for Cilium's notices alone, POD for programs of ours alone.
    """
    told = nothing_told(bundle, plan)
    live = _Live(told, printed, progress)
    containers: Mapping[str, Container] = {}
    records: list[Record] = []
    if mode is Mode.AGENT:
        told.problems = dict.fromkeys(plan.nodes, "--node-access agent: nothing is loaded there")
    else:
        progress.show(f"node pods on {', '.join(plan.nodes)}")
        containers, told.problems = containers_on(gatherer.answerers, plan.nodes, gatherer.deadline)
        records += [
            unavailable_record(node_place(node), q.TRACE.node_argv, why)
            for node, why in told.problems.items()
        ]
    agents: Mapping[str, Container] = {}
    if mode is not Mode.POD and plan.monitor is not None:
        agents, why_not = agents_on(gatherer, plan.nodes)
        told.unread = {**dict.fromkeys(agents, ""), **why_not}
    if containers or agents:
        progress.show("loading BPF programs" if containers else "asking Cilium's agents")
        with (
            Monitors(gatherer.session, agents, plan.monitor, limits.seconds) as monitors,
            Sessions(gatherer.session, containers, plan.requests) as sessions,
        ):
            try:
                live.until_ready(sessions, monitors)
                watched = dict.fromkeys((*containers, *agents))
                progress.show(f"watching {', '.join(watched)}; Ctrl-C ends it")
                sessions.go()
                live.until_done(sessions, monitors, limits)
            except KeyboardInterrupt:
                pass  # the end that the user chose: the answer follows
            live.end(sessions, monitors)
            records += [*sessions.records(), *monitors.records()]
    whole = bundle_of([*bundle.records, *records], bundle.source, bundle.note)
    return answer_of(told, plan), whole


class _Live:
    """Follows what nodes and agents tell, as it comes."""

    def __init__(self, told: Told, printed: Printed, progress: Progress) -> None:
        self._told, self._printed, self._progress = told, printed, progress
        self._held = Held(self._follow)
        self._pending: list[NoticeLine] = []
        self._began = time.monotonic()

    def until_ready(self, sessions: Sessions, monitors: Monitors) -> None:
        """Wait until all watch, or for some seconds."""
        monitors.wait_until_ready()
        until = time.monotonic() + _READY_SECONDS
        while sessions.running and not sessions.ready and time.monotonic() < until:
            for each in sessions.next_lines(0.2):
                self._held.take(each)
        for each in sessions.not_ready(f"it did not watch within {_READY_SECONDS:g} s"):
            self._held.take(each)
        self._began = time.monotonic()

    def until_done(self, sessions: Sessions, monitors: Monitors, limits: Limits) -> None:
        """Follow until the limits; then for LINGER_SECONDS more."""
        until = time.monotonic() + limits.seconds
        done = False
        # Nobody sends where no session runs; what a pod sends of its own, agents tell of.
        by_agents = monitors.running and not limits.send
        while (sessions.running or (by_agents and monitors.running)) and time.monotonic() < until:
            if sessions.running:
                for each in sessions.next_lines(0.1):
                    self._held.take(each)
            else:
                time.sleep(0.1)
            self._take_notices(monitors)
            self._held.release()
            if not done and limits.count is not None and self._count(limits) >= limits.count:
                done, until = True, min(until, time.monotonic() + LINGER_SECONDS)

    def end(self, sessions: Sessions, monitors: Monitors) -> None:
        """End all, and take what they still tell."""
        sessions.stop()
        for each in sessions.lines(_READY_SECONDS):
            self._held.take(each)
        for each in sessions.give_up(f"it told no end within {_READY_SECONDS:g} s"):
            self._held.take(each)
        monitors.stop()
        self._told.unread = {**self._told.unread, **monitors.problems()}
        self._held.release(everything=True)
        self._take_notices(monitors, everything=True)
        self._progress.show("")

    def _count(self, limits: Limits) -> int:
        if limits.send:
            return len(self._told.sent)
        packets = len(self._told.follower.packets)
        return packets or len({each.event.seq for each in self._told.notices.found})

    def _follow(self, each: NodeLine) -> None:
        self._progress.show("")
        follow(self._told, self._printed, each)

    def _take_notices(self, monitors: Monitors, *, everything: bool = False) -> None:
        """Take notices, those of the last moment later: the packets that they are of come first."""
        self._pending += monitors.lines()
        old = time.monotonic() - (0 if everything else _LATER_SECONDS)
        now = [line for line in self._pending if line.monotonic <= old]
        self._pending = [line for line in self._pending if line.monotonic > old]
        for line in now:
            seconds = max(0.0, line.monotonic - self._began)
            notice = notice_in(self._told, line.node, line.line, seconds, line.number)
            if notice is not None:
                self._progress.show("")
                self._printed.notice(notice)
