"""netkat's command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.netkat.request import USAGE, Request, parse, words_of


@pytest.mark.usefixtures("services")
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
        ("-d --debug=false h 80", Request("h", 80)),
        ("127.1 80 -i-0", Request("127.1", 80, interface="-0")),
        ("fe80::1%eth0 80", Request("fe80::1%eth0", 80)),
        ("-l :: 80 -k", Request("::", 80, listen=True, keep=True)),
        ("h 80 -zv6", Request("h", 80, connect_only=True, verbose=True, version=6)),
        ("--terminal h 80", Request("h", 80, terminal=True)),
        ("-4 -N h 80", Request("h", 80, version=4, half_close=True)),
        ("--via 10.0.0.1 h 80", Request("h", 80, via="10.0.0.1")),
        ("--via 02:0:0:0:0:ff h 80", Request("h", 80, via_mac=b"\2\0\0\0\0\xff")),
        ("--via 2-0-0-0-0-a h 80", Request("h", 80, via_mac=b"\2\0\0\0\0\n")),
        ("--mark 0x200 h 80", Request("h", 80, mark=0x200)),
        ("h 80 --exec -- curl -s x", Request("h", 80, command=("curl", "-s", "x"))),
        ("-d --exec h 80 -- nc -- 1", Request("h", 80, debug=True, command=("nc", "--", "1"))),
    ],
)
def test_words(words: str, expected: Request) -> None:
    assert parse(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "two operands are needed, HOST and PORT, not 0"),
        ("h", "two operands are needed, HOST and PORT, not 1 (h)"),
        ("h 80 81", "two operands are needed, HOST and PORT, not 3 (h 80 81)"),
        ("h 0", "PORT 0: a number from 1 to 65535"),
        ("h 65536", "PORT 65536: a number from 1 to 65535"),
        (f"h {'9' * 5000}", "a number from 1 to 65535"),
        ("h nosuchservice", "name of a tcp service"),
        ("-u h nosuchservice", "name of a udp service"),
        ("h:80 80", "HOST h:80: an IP address or a name is needed, without a port"),
        (
            "[::1] 80",
            "HOST [::1]: an IP address or a name is needed, without a port and without br",
        ),
        ("300.1.1.1 80", "HOST 300.1.1.1: an IP address or a name is needed"),
        ("pod/web 80", "HOST pod/web: an IP address or a name is needed"),
        ("- 80", "HOST -: an IP address or a name is needed"),
        ("0.0.0.0 80", "HOST 0.0.0.0 is for -l"),
        (":: 80", "HOST :: is for -l"),
        ("-x h 80", "no such option: -x"),
        ("--lu h 80", "no such option: --lu"),
        ("---udp h 80", "no such option: ---udp"),
        ("-p9=8 h 80", "no such option: -p9=8"),
        ("-w 0 h 80", "-w 0: a number of seconds above 0 is needed"),
        ("-w nan h 80", "-w nan: a number of seconds"),
        ("-w inf h 80", "-w inf: a number of seconds"),
        ("-p 70000 h 80", "-p 70000: a number from 0 to 65535 is needed"),
        ("-p http h 80", "-p http: a number from 0 to 65535 is needed"),
        ("--mark -1 h 80", "--mark needs a number, and -1 is an option"),
        ("--mark=-1 h 80", "--mark -1: a number from 0 to 4294967295 is needed"),
        ("-i a/b h 80", "-i a/b: no device has such a name"),
        ("-i -d h 80", "-i needs the name of a device, and -d is an option"),
        ("h 80 -p", "-p needs a port"),
        ("h 80 -w", "-w needs a number of seconds"),
        ("h 80 --source=", "--source= needs an IP address"),
        ("h 80 --pcap", "--pcap needs a file"),
        ("h 80 --pcap -", "--pcap needs a file"),
        ("-4 -6 h 80", "-4 and -6 exclude each other: leave one"),
        ("--via node/x h 80", "--via node/x: the IP address or MAC of one host is needed"),
        ("--via 02:0:0:0:0:100 h 80", "--via 02:0:0:0:0:100: the IP address or MAC"),
        ("--via 02:0:0:0:0:fg h 80", "--via 02:0:0:0:0:fg: the IP address or MAC"),
        ("--via 224.0.0.1 h 80", "--via 224.0.0.1: the IP address or MAC of one host is needed"),
        ("--via fe80::1%eth0 h 80", "--via fe80::1%eth0: leave out %eth0"),
        ("--source h h 80", "--source h: the IP address of one host is needed"),
        ("--source 0.0.0.0 h 80", "--source 0.0.0.0: the IP address of one host is needed"),
        ("-6 1.2.3.4 80", "-6 and HOST 1.2.3.4 are of different IP versions"),
        ("--via fd01::1 1.2.3.4 80", "HOST 1.2.3.4 and --via fd01::1 are of different IP versions"),
        ("--source ::1 1.2.3.4 80", "HOST 1.2.3.4 and --source ::1 are of different IP versions"),
        ("--source ::2 --via 10.0.0.1 h 80", "--source ::2 and --via 10.0.0.1 are of different IP"),
        ("-k h 80", "-k is for -l: add -l, or leave it out"),
        ("-l -z h 80", "with -l, HOST and PORT are what is bound: leave out -z"),
        ("-l -p 1 --source ::1 h 80", "with -l, HOST and PORT are what is bound: leave out -p and"),
        ("--exec h 80 --", "--exec and -- CMD go together"),
        ("--exec h 80 ls -l", "--exec needs -- before the program"),
        ("-l --exec h 80 -- true", "--exec connects by itself: leave out -l"),
        ("-z --exec h 80 -- true", "--exec connects by itself: leave out -z"),
        ("-debug=maybe h 80", "-debug=maybe: this option is true or false"),
    ],
)
def test_words_that_are_none(words: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert complaint in raised.value.message


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--intreface eth0 h 80", "did you mean --interface?"),
        ("-sourceport 1 h 80", "did you mean --source-port?"),
        ("h:80", "words of their own, and an address needs no brackets"),
        ("-- -u h 80", "options stand before --"),
        ("--xyz h 80", ""),
    ],
)
def test_what_may_have_been_meant(words: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert raised.value.hint.removeprefix("HOST and PORT are ") == hint


def test_a_word_that_cannot_be_encoded_is_no_service() -> None:
    with pytest.raises(UsageError, match="PORT"):
        parse(["h", "\udcff"])


def test_a_next_hop_of_the_clients() -> None:
    assert parse(["--via", "node/x", "h", "80"], nodes=True) == Request("h", 80, via="node/x")
    with pytest.raises(UsageError, match="--source node/x"):
        parse(["--source", "node/x", "h", "80"], nodes=True)


def test_help_asks_for_no_operands() -> None:
    assert parse(["-h"]) is None
    assert parse(["-lh"]) is None
    assert parse(["-h=false", "h", "80"]) == Request("h", 80)


def test_every_option_is_in_the_usage() -> None:
    said = set(USAGE.replace(",", " ").split())
    options = (
        "-l --listen -k --keep-open -u --udp -4 -6 -p --source-port --source -i --interface --via"
    )
    options += " --mark -w --wait -N -z --zero -d --debug --pcap -v --verbose --exec"
    assert set(options.split()) == {word for word in said if word[0] == "-" and word.strip("-")}
    assert max(map(len, USAGE.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("h 80", 0),
        ("-4 h 80", 4),
        ("fd00::1 80", 6),
        ("fe80::1%eth0 80", 6),
        ("h 80 --source 10.0.0.1", 4),
        ("h 80 --via 10.0.0.1", 0),
    ],
)
def test_the_ip_version_that_the_words_tell(words: str, version: int) -> None:
    read = parse(words.split())
    assert read is not None
    assert read.ip_version == version


_NAMES = st.text("abc-=é 1", min_size=1).filter(lambda name: not name.startswith("-"))
_SWITCHES = ("udp", "half_close", "connect_only", "debug", "verbose", "terminal", "wait_given")
_REQUESTS = st.builds(
    Request,
    host=st.sampled_from(("h", "10.0.0.1", "127.1", "é.example")),
    port=st.integers(1, 65535),
    version=st.sampled_from((0, 4)),
    source=st.sampled_from(("", "10.0.0.2")),
    source_port=st.integers(0, 65535),
    interface=st.sampled_from(("", "eth0", "-", "a=b", "é")),
    mark=st.integers(0, 0xFFFFFFFF),
    pcap=st.one_of(st.just(""), _NAMES),
    command=st.just(()),
    **dict.fromkeys(_SWITCHES, st.booleans()),
)


@given(
    _REQUESTS,
    st.one_of(
        st.just({"wait": 5.0, "wait_given": False}),
        st.builds(
            lambda wait: {"wait": wait, "wait_given": True},
            st.floats(0, 1e9, exclude_min=True, exclude_max=True),
        ),
    ),
    st.sampled_from(
        (
            {},
            {"via": "10.0.0.3"},
            {"via_mac": b"\0\1\2\xfd\xfe\xff"},
            {"connect_only": False, "command": ("nc", "--", "-l", "--via", "node/x", "")},
            {"connect_only": False, "source": "", "source_port": 0, "listen": True, "keep": True},
        )
    ),
)
def test_a_request_is_spelled_so_that_it_is_read_again(
    made: Request, wait: dict[str, object], more: dict[str, object]
) -> None:
    made = replace(made, **{**wait, **more})
    assert parse(words_of(made)) == made


def test_the_node_waits_for_few_imports() -> None:
    """What netkat's words import beside the standard library's own few."""
    allowed = "import dataclasses, ipaddress, socket, typing"
    ours = "import kubectl_ebpfnet.model.netkat.request"
    listed = "import sys; before = set(sys.modules); {}; print(*set(sys.modules) - before)"

    def modules(what: str) -> set[str]:
        argv = [sys.executable, "-c", listed.format(what)]
        return set(
            subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        )

    assert modules(ours) - modules(allowed) == {
        "kubectl_ebpfnet",
        "kubectl_ebpfnet.errors",
        "kubectl_ebpfnet.model",
        "kubectl_ebpfnet.model.dataclass",
        "kubectl_ebpfnet.model.netkat",
        "kubectl_ebpfnet.model.netkat.request",
        "kubectl_ebpfnet.model.netkat.values",
    }
