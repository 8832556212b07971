"""netkat's command line."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.netkat import Request, request


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("1.2.3.4 80", Request("1.2.3.4", 80)),
        ("-l -u 0.0.0.0 53", Request("0.0.0.0", 53, listen=True, udp=True)),
        ("-lu 0.0.0.0 53", Request("0.0.0.0", 53, listen=True, udp=True)),
        ("-listen --udp ::1 domain", Request("::1", 53, listen=True, udp=True)),
        ("-p 99 h http", Request("h", 80, source_port=99)),
        ("--source-port=99 h 80", Request("h", 80, source_port=99)),
        ("-source-port 99 h 80", Request("h", 80, source_port=99)),
        ("-w 2 h 80", Request("h", 80, wait=2.0, wait_given=True)),
        ("-w2 h 80", Request("h", 80, wait=2.0, wait_given=True)),
        ("-wait=0.5 h 80", Request("h", 80, wait=0.5, wait_given=True)),
        ("-d -i eth0 h 80", Request("h", 80, debug=True, interface="eth0")),
        ("-debug=false --interface eth0 h 80", Request("h", 80, interface="eth0")),
        ("h 80 -zv6", Request("h", 80, connect_only=True, verbose=True, version=6)),
        ("--terminal h 80", Request("h", 80, terminal=True)),
        ("-4 -N h 80", Request("h", 80, version=4, half_close=True)),
        ("--via 10.0.0.1 h 80", Request("h", 80, via="10.0.0.1")),
        ("--via 02:0:0:0:0:ff h 80", Request("h", 80, via_mac=b"\2\0\0\0\0\xff")),
        ("--mark 0x200 h 80", Request("h", 80, mark=0x200)),
        ("h 80 --exec -- curl -s x", Request("h", 80, command=("curl", "-s", "x"))),
        ("-d --exec h 80 -- nc -- 1", Request("h", 80, debug=True, command=("nc", "--", "1"))),
    ],
)
def test_words(words: str, expected: Request) -> None:
    assert request(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "two operands"),
        ("h", "two operands"),
        ("h 80 81", "two operands"),
        ("h 0", "no port"),
        ("h 65536", "no port"),
        ("h nosuchservice", "no tcp service"),
        ("-x h 80", "no such option"),
        ("--lu h 80", "no such option"),
        ("-w 0 h 80", "seconds"),
        ("-w nan h 80", "seconds"),
        ("-p 70000 h 80", "0 to 65535"),
        ("h 80 -p", "needs a value"),
        ("-4 -6 h 80", "exclude"),
        ("--via node/x h 80", "--via node/x: this is no IP address"),
        ("--source h h 80", "no IP address"),
        ("-k h 80", "-k is for -l"),
        ("-l -z h 80", "with -l"),
        ("--exec h 80", "go together"),
        ("-l --exec h 80 -- true", "--exec"),
        ("-debug=maybe h 80", "true or false"),
    ],
)
def test_words_that_are_none(words: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        request(words.split())


def test_help_asks_for_no_operands() -> None:
    assert request(["-h"]) is None
