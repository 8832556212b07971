"""The sockets of a namespace, by sock_diag and by /proc, and which of them its kernel chooses."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest

from kubectl_ebpfnet.explain.kernel.sockets import look_up
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.parse import sockets as procfs
from tests.network_namespaces import Namespace, namespaces, why_not

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not()), reason=f"cannot make a network namespace: {why_not()}"),
]

V4, V6 = socket.AF_INET, socket.AF_INET6
OWN, OWN6, FAR, FAR6 = "10.9.0.1", "fd09::1", "10.9.0.2", "fd09::2"
NETS = """
link set lo up
link add eth0 type veth peer name eth0 netns {other}
addr add 10.9.0.1/24 dev eth0
addr add fd09::1/64 dev eth0 nodad
link set eth0 up
"""
FAR_NET = """
addr add 10.9.0.2/24 dev eth0
addr add fd09::2/64 dev eth0 nodad
link set eth0 up
"""
# port: family, address, IPV6_V6ONLY, device
BOUND = {
    1001: (V4, "0.0.0.0", None, ""),
    1002: (V4, OWN, None, ""),
    1003: (V4, "127.0.0.1", None, ""),
    1004: (V6, "::", 0, ""),
    1005: (V6, "::", 1, ""),
    1006: (V6, OWN6, None, ""),
    1007: (V6, "::1", None, ""),
    1008: (V6, f"::ffff:{OWN}", None, ""),
    1009: (V4, "0.0.0.0", None, "lo"),
    1010: (V6, "::", 0, "eth0"),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """A namespace with a socket of each kind, and another one on its link."""
    with namespaces("sock", "sockfar") as (own, far), ExitStack() as open_sockets:
        own.set_up(NETS.format(other=far.name), "ip")
        far.set_up(FAR_NET, "ip")
        assert not own.missing + far.missing
        with netns.inside(Path(own.path)):
            for port, kind in product(BOUND, (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
                open_sockets.enter_context(bound(port, kind))
        yield own, far


@contextmanager
def bound(port: int, kind: int) -> Iterator[socket.socket]:
    family, address, v6_only, device = BOUND[port]
    with socket.socket(family, kind) as made:
        if v6_only is not None:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        if device:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen(5)
        yield made


def told(own: Namespace, question: str) -> list[Listener]:
    with netns.inside(Path(own.path)):
        found = registry.function(question)(NodeRequest(1, node_argv(question)))
        return list(found)


@pytest.mark.parametrize("fact", [q.TCP_LISTENERS, q.UDP_SOCKETS], ids=["tcp", "udp"])
def test_proc_tells_the_same_but_for_three_things(
    pair: tuple[Namespace, Namespace], fact: q.Fact[Listener]
) -> None:
    own, _ = pair
    by_diag = told(own, fact.node)
    assert len(by_diag) == len(BOUND)
    parser = procfs.tcp if fact is q.TCP_LISTENERS else procfs.udp
    for form in fact.forms[:-1]:  # the last is for kernels without IPv6
        by_proc = parser(own.run(*form))
        less = {replace(one, v6_only=None, device="", backlog=None) for one in by_diag}
        assert set(by_proc) == less


def test_what_sock_diag_adds(pair: tuple[Namespace, Namespace]) -> None:
    found = {one.port: one for one in told(pair[0], "tcp-listeners")}
    assert [found[port].v6_only for port in (1001, 1004, 1005)] == [None, False, True]
    assert [found[port].device for port in (1001, 1009, 1010)] == ["", "lo", "eth0"]
    assert {one.backlog for one in found.values()} == {5}


ASKED = [
    *product([OWN, OWN6], ["eth0"], [True, False]),  # on lo too, such a packet counts as eth0's
    *product(["127.0.0.1", "::1"], ["lo"], [False]),
]


@pytest.mark.parametrize(("address", "device", "from_far"), ASKED)
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_the_kernel_chooses_what_we_say(
    pair: tuple[Namespace, Namespace], address: str, device: str, from_far: bool, protocol: int
) -> None:
    own, far = pair
    listed = told(own, "tcp-listeners" if protocol == TCP else "udp-sockets")
    to = ip_address(address)
    source = ip_address(FAR if to.version == 4 else FAR6) if from_far else to
    with netns.inside(Path(far.path if from_far else own.path)):
        for port in (*BOUND, 2000):
            found = look_up(listed, Flow(protocol, source, None, to, port), device)
            assert bool(found.takers) is takes(address, port, protocol), (port, found)


def takes(address: str, port: int, protocol: int) -> bool:
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    with socket.socket(V6 if ":" in address else V4, kind) as made:
        made.settimeout(0.1 if protocol == UDP else 5)
        try:
            made.connect((address, port))
            if protocol == UDP:
                made.send(b"x")
                made.recv(1)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return protocol == UDP  # nobody answers, and nobody refuses
    return True


def test_a_full_queue_has_more_than_its_backlog(pair: tuple[Namespace, Namespace]) -> None:
    own, _ = pair
    with netns.inside(Path(own.path)), ExitStack() as kept:
        listener = kept.enter_context(socket.create_server((OWN, 1100), backlog=1))
        for waiting in (1, 2):
            kept.enter_context(socket.create_connection((OWN, 1100), timeout=5))
            (seen,) = [one for one in told(own, "tcp-listeners") if one.port == 1100]
            assert (seen.waiting, seen.backlog) == (waiting, 1)
        with pytest.raises(TimeoutError):
            socket.create_connection((OWN, 1100), timeout=0.3)
        listener.accept()[0].close()
        kept.enter_context(socket.create_connection((OWN, 1100), timeout=5))


def test_of_several_the_nearest_takes_it(pair: tuple[Namespace, Namespace]) -> None:
    own, _ = pair
    with netns.inside(Path(own.path)), ExitStack() as kept:
        made = []
        for address, family in ((OWN, V4), ("0.0.0.0", V4), ("::", V6)):
            one = kept.enter_context(socket.socket(family, socket.SOCK_STREAM))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((address, 1200))
            one.listen(1)
            one.settimeout(1)
            made.append(one)
        for expected in range(3):
            listed = told(own, "tcp-listeners")
            flow = Flow(TCP, ip_address(FAR), None, ip_address(OWN), 1200)
            (taker,) = look_up(listed, flow, "eth0").takers
            assert str(taker.address) == (OWN, "0.0.0.0", "::")[expected]
            with socket.create_connection((OWN, 1200), timeout=5):
                made[expected].accept()[0].close()
            made[expected].close()


def test_the_question_works_without_rights() -> None:
    """Nobody needs a capability to list sockets."""
    code = (
        "from kubectl_ebpfnet.node.netlink.sockets import tcp_listeners, udp_sockets;"
        "list(tcp_listeners(None)); list(udp_sockets(None)); print('told')"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    done = subprocess.run([*argv, sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout == b"told\n", done.stderr
