"""One kind of place a file: what happens to a packet there, and its next place."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_ebpfnet.explain.path.stages import (
    arrival,
    device,
    endpoint,
    forward,
    host,
    pod,
    socket,
    tunnel,
    veth,
    wire,
)
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage

STAGES: dict[Stage, Callable[[PathBuilder, PacketState], PacketState | None]] = {
    Stage.SOCKET: socket.leave,
    Stage.POD: pod.leave,
    Stage.VETH: veth.enter,
    Stage.FORWARD: forward.decide,
    Stage.HOST: host.forward,
    Stage.NODE_LOCAL: host.deliver,
    Stage.TUNNEL: tunnel.encapsulate,
    Stage.DEVICE: device.leave,
    Stage.WIRE: wire.cross,
    Stage.ARRIVAL: arrival.enter,
    Stage.ENDPOINT: endpoint.enter,
}
