"""Addresses of a DNS name."""

from __future__ import annotations

from ipaddress import ip_address

from kubectl_ebpfnet.parse import lookup
from tests.parse.parse_samples import sample


def test_each_address_comes_once_and_other_lines_are_skipped() -> None:
    printed = sample("glibc-2.36/getent-ahosts-localhost")  # a line for each type of socket
    assert lookup.addresses(printed) == (ip_address("127.0.0.1"),)
    assert lookup.addresses(b"93.184.216.34\nnot an address\n") == (ip_address("93.184.216.34"),)
    assert lookup.addresses(b"") == ()
