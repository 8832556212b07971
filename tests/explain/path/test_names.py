"""What a DNS name is to a pod: one row a situation, by what getent and nslookup really print."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path.names import look_up, preferred
from kubectl_ebpfnet.explain.path.resolver import NameAnswer, NameSources
from kubectl_ebpfnet.model.evidence import CLIENT, InMemory, Record, bundle_of, pod_place
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.resolver import LookupOutcome
from kubectl_ebpfnet.parse import kube
from tests.parse.parse_samples import sample

POD = pod_place("shop", "cart")
FILE = ("cat", "/etc/resolv.conf")
CONF = (
    b"search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
    b"nameserver 10.96.0.10\noptions ndots:5\n"
)
SHORT = b"nameserver 10.96.0.10\n"
GETENT = sample("glibc-2.36/getent-ahosts-dual")
BOTH = sample("busybox-1.35.0/nslookup-both")
SEARCHED = sample("busybox-1.35.0/nslookup-search")
NONE = sample("busybox-1.35.0/nslookup-none")
NXDOMAIN = sample("busybox-1.35.0/nslookup-nxdomain")
SERVFAIL = sample("busybox-1.35.0/nslookup-servfail")
SILENT = sample("busybox-1.35.0/nslookup-silent")
OLD = b"Server:    10.96.0.10\nAddress 1: 10.96.0.10 kube-dns.kube-system.svc.cluster.local\n\n"
OLD_FOUND = OLD + b"Name:      web\nAddress 1: 10.96.1.2 web.shop.svc.cluster.local\n"
OLD_NONE = OLD + b"nslookup: can't resolve 'web'\n"
BIND = (
    b"Server:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n\n"
    b"Name:\tweb.shop.svc.cluster.local\nAddress: 10.96.1.2\n\n"
)
BIND_LATE = (
    b";; communications error to 10.96.0.10#53: timed out\n"
    b";; communications error to 10.96.0.10#53: timed out\n;; no servers could be reached\n\n"
)
WEB = kube.service(
    {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIPs": ["10.96.1.2"], "ports": [{"port": 80}]},
    }
)
DNS = kube.service(
    {
        "metadata": {"namespace": "kube-system", "name": "kube-dns"},
        "spec": {"clusterIPs": ["10.96.0.10"], "ports": [{"port": 53}]},
    }
)
DB = ServiceEndpoint("data", "db", ip_address("10.0.0.9"), "", TCP, 5432, True, True, False,
                     pod="db-0")  # fmt: skip


def said(*words: str, out: bytes = b"", code: int | None = 0, error: str = "") -> Record:
    return Record(0, POD, words, code, InMemory(out), b"", "", error)


def getent(name: str = "web", out: bytes = b"", code: int | None = 0, error: str = "") -> Record:
    return said("getent", "ahosts", name, out=out, code=code, error=error)


def nslookup(name: str, out: bytes, code: int = 1) -> Record:
    return said("nslookup", name, out=out, code=code)


NO_GETENT = getent(code=127)
SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")


def each(out: bytes, name: str = "web") -> list[Record]:
    """The same answer for every name that the resolver asks for."""
    return [nslookup(f"{name}.{domain}.", out) for domain in SEARCH] + [nslookup(f"{name}.", out)]


def answer(name: str, *records: Record, pod: dict[str, Any] | None = None) -> NameAnswer:
    inside = bundle_of(records, "test").records
    found = kube.pod(pod) if pod is not None else None
    return look_up(name, NameSources("shop", found, inside, (WEB, DNS), (DB,)))


CONFIG = said(*FILE, out=CONF)


@pytest.mark.parametrize(
    ("records", "outcome", "addresses", "says"),
    [
        ([CONFIG, getent(out=GETENT)], "found", ["fd00:96::7", "10.96.1.2"], "asked in pod shop/"),
        ([CONFIG, getent(code=2), *each(NXDOMAIN)], "no such name", [],
         "web does not exist: nameserver 10.96.0.10 of pod shop/cart says NXDOMAIN for web.shop.svc"
         ".cluster.local, web.svc.cluster.local, web.cluster.local, web.corp.example, web"),
        ([CONFIG, getent(code=2), nslookup("web.shop.svc.cluster.local.", SILENT)], "silent", [],
         "nameserver 10.96.0.10 of pod shop/cart did not answer"),
        ([CONFIG, getent(code=2), nslookup("web.shop.svc.cluster.local.", BIND_LATE)], "silent", [],
         "did not answer"),
        ([CONFIG, getent(code=None, error="no answer within 8 s")], "silent", [],
         "was not resolved in pod shop/cart: no answer within 8 s"),
        ([CONFIG, getent(code=2), *each(SERVFAIL)], "failed", [], "answers SERVFAIL for web.shop"),
        ([CONFIG, getent(code=2), *each(NONE)], "no address", [], "exists and has no address"),
        ([CONFIG, getent(code=2)], "nothing", [], "does not say whether a nameserver answered"),
        ([CONFIG, getent(code=2), nslookup("web.shop.svc.cluster.local.", BOTH)], "no address", [],
         "gives no address of web, though its nameserver has 10.96.1.2, fd00:96::7"),
        ([CONFIG, NO_GETENT, nslookup("web.shop.svc.cluster.local.", BOTH, 0)], "found",
         ["10.96.1.2", "fd00:96::7"], "nslookup of web.shop.svc.cluster.local in pod shop/cart"),
        ([CONFIG, NO_GETENT, nslookup("web", SEARCHED)], "found", ["10.96.1.2", "fd00:96::7"], ""),
        ([CONFIG, NO_GETENT, nslookup("web", OLD_FOUND, 0)], "found", ["10.96.1.2"], ""),
        ([CONFIG, NO_GETENT, nslookup("web", BIND, 0)], "found", ["10.96.1.2"], ""),
        ([CONFIG, NO_GETENT, nslookup("web.", BOTH, 0), nslookup("web.shop.svc.cluster.local.",
         NXDOMAIN)], "found", ["10.96.1.2", "fd00:96::7"], "nslookup of web in"),
        ([CONFIG, NO_GETENT, nslookup("web.", OLD_NONE)], "found", [], "calls svc shop/web so"),
    ],
)  # fmt: skip
def test_what_the_pod_says(
    records: list[Record], outcome: str, addresses: list[str], says: str
) -> None:
    found = answer("web", *records)
    assert found.outcome == outcome
    assert [str(each) for each in found.addresses] == addresses
    assert says in found.text
    assert str(found.nameserver) in ("10.96.0.10", "None")


@pytest.mark.parametrize(
    ("name", "conf", "pod", "found"),
    [
        ("web", CONF, None, "shop/web"),
        ("web", None, {}, "shop/web"),
        ("WEB.Shop", None, {}, "shop/web"),
        ("web.shop.svc", None, {}, "shop/web"),
        ("web.shop.svc.cluster.local.", None, {}, "shop/web"),
        ("db-0.db.data", None, {}, "10.0.0.9"),
        ("10-0-0-7.shop.pod.cluster.local", None, {}, "10.0.0.7"),
        ("fd00--1.shop.pod", None, {}, "fd00::1"),
        ("web.other", None, {}, ""),
        ("web", SHORT, None, ""),  # no search list: nothing completes it
        ("web.shop.svc.cluster.local", SHORT, None, "shop/web"),
        ("web", None, {"hostNetwork": True}, ""),  # the node's resolver knows no Services
        ("web", None, {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, "shop/web"),
        ("web", None, {"dnsPolicy": "Default"}, ""),
        ("web.shop.svc.cluster.local", None, {"dnsPolicy": "Default"}, ""),
        ("web", None, {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"],
                       "searches": ["shop.svc.cluster.local"]}}, "shop/web"),
        ("web", CONF.replace(b"cluster.local", b"k8s.example"), None, "shop/web"),
        ("localhost", None, {}, "127.0.0.1 ::1"),
        ("db.example", None, {"hostAliases": [{"ip": "192.0.2.7", "hostnames": ["DB.example"]}]},
         "192.0.2.7"),
    ],
)  # fmt: skip
def test_without_a_look_up(
    name: str, conf: bytes | None, pod: dict[str, Any] | None, found: str
) -> None:
    records = [said(*FILE, out=conf)] if conf is not None else []
    spec = {"spec": pod, "metadata": {"namespace": "shop", "name": "cart"}}
    said_of = answer(name, *records, pod=spec if pod is not None else None)
    if not found:
        assert said_of.outcome is LookupOutcome.NOT_ASKED
        assert said_of.text.startswith(f"nothing says what {name} resolves to")
        by_node = bool(pod) and pod.get("dnsPolicy") in (None, "Default")
        assert ("its resolver is the node's" in said_of.text) is by_node
        return
    assert not said_of.by_pod
    if said_of.service is not None:
        assert f"{said_of.service.namespace}/{said_of.service.name}" == found
    else:
        assert " ".join(map(str, said_of.addresses)) == found


def test_the_hosts_file_is_read() -> None:
    hosts = said("cat", "/etc/hosts", out=sample("kubelet-1.36/etc-hosts"))
    found = answer("db.example", CONFIG, hosts, NO_GETENT)
    assert [str(each) for each in found.addresses] == ["192.0.2.7"]
    assert found.evidence[0].excerpt == ("192.0.2.7\tdb.example\tDB",)


def test_this_machine_is_no_proof() -> None:
    here = Record(1, CLIENT, ("resolve", "out.example"), 0, InMemory(b"192.0.2.7\n"))
    sources = NameSources("shop", None, (CONFIG, NO_GETENT), (), (), (here,))
    assert "may differ in the pod" in look_up("out.example", sources).text
    refused = replace(sources, inside=(CONFIG, getent("out.example", code=2)))
    assert look_up("out.example", refused).outcome is LookupOutcome.NOTHING


def test_why_nobody_could_be_asked() -> None:
    nobody = said("exec", code=None, error="the image has no shell, and none of cat, getent")
    found = answer("example.com", nobody)
    assert found.outcome is LookupOutcome.NOT_ASKED
    assert "the image has no shell" in found.text
    assert "the pod would ask 10.96.0.10 for example.com.shop.svc.cluster.local" in found.text


@pytest.mark.parametrize(
    ("own", "version", "ordered", "taken"),
    [
        (["10.0.0.1"], None, True, "192.0.2.1"),
        (["10.0.0.1", "fd00::1"], None, True, "2001:db8::1"),  # the C library has decided
        (["10.0.0.1", "fd00::1"], None, False, "192.0.2.1"),  # rule 5: another label
        (["10.0.0.1", "2a00::1"], None, False, "2a00::2"),
        (["10.0.0.1", "fd00::1"], 6, False, "2001:db8::1"),
        (["10.0.0.1", "fd00::1"], 4, True, "192.0.2.1"),
        (["fd00::1"], None, True, "2001:db8::1"),
        ([], None, False, "2001:db8::1"),
        (["fd00::1"], 4, False, "192.0.2.1"),
    ],
)
def test_the_address_that_a_pod_takes_first(
    own: list[str], version: int | None, ordered: bool, taken: str
) -> None:
    six = "2a00::2" if taken == "2a00::2" else "2001:db8::1"
    found = NameAnswer(
        LookupOutcome.FOUND, (ip_address(six), ip_address("192.0.2.1")), ordered=ordered
    )
    assert str(preferred(found, [ip_address(each) for each in own], version)) == taken
