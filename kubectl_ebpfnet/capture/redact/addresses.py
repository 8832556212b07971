"""Keyed substitutes for addresses that keep the shape of a network.

The substitution is a permutation that preserves prefixes, like Crypto-PAn (Xu, Fan, Ammar, Moon:
"Prefix-Preserving IP Address Anonymization", ICNP 2002): two addresses that share their first bits
up to a prefix length in use share them afterwards, so an address stays in its networks, matches the
same route, and stays private, link-local or multicast. Unlike Crypto-PAn it goes byte by byte and
keeps zero bytes and the first address of each network in use: 10.244.0.0/24 stays a network's
address with or without its length.

Addresses without information, or with a fixed meaning, are kept: 0.0.0.0/8, 127.0.0.0/8,
169.254.0.0/16, 224.0.0.0/3 (multicast, netmasks, broadcast), ::/8 with ::1, ff00::/8, the prefix
of fe80::/64, and of private ranges (RFC 1918, 6598, 4193) the bits that make them private.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from kubectl_ebpfnet.model.net import Address

_V4_KEPT = frozenset((0, 127, *range(224, 256)))
_V4_SPECIAL = frozenset((10, 100, 169, 172, 192, 198, 203))
_V4_PLAIN = [n for n in range(256) if n not in _V4_KEPT | _V4_SPECIAL]
_V4_SECOND_KEPT = {10: 0, 100: 2, 169: 8, 172: 4, 192: 8, 198: 8, 203: 8}
"""How many first bits of the second byte distinguish private from public addresses."""
_V6_SECOND_KEPT = (b"\x20\x01", b"\x20\x02")
"""2001:: and 2002::, whose parts have many purposes."""
_NAT64 = IPv6Address("64:ff9b::").packed[:12]
_V4_MAPPED = IPv6Address("::ffff:0:0").packed[:12]


class AddressMap:
    """The substitution of addresses in one bundle."""

    def __init__(self, key: bytes, prefixes: Iterable[tuple[Address, int]] = ()) -> None:
        """
        Args:
            key: secret; it can undo the substitution.
            prefixes: (an address, prefix length) of every network in use.
        """
        self._key = key
        self._cuts: dict[bytes, set[int]] = {}
        for address, length in prefixes:
            whole, bits = divmod(length, 8)
            if bits and length < address.max_prefixlen:
                self._cuts.setdefault(_tag(address.packed[:whole], address.version), set()).add(
                    bits
                )
        self._cached = cache(self._substitute)

    def address(self, address: Address) -> Address:
        """Return the substitute, of the same IP version."""
        return self._cached(address)

    def mac(self, text: str) -> str:
        """Return a MAC address's substitute, in the same case; group addresses and zeros stay."""
        raw = bytes.fromhex(text.replace(":", ""))
        if raw[0] & 1 or not any(raw):
            return text
        digest = self._digest(b"mac", raw)
        mapped = bytes((digest[0] & 0xFC | 0x02, *digest[1:6]))  # unicast, locally administered
        words = mapped.hex(":")
        return words.upper() if text.upper() == text and text.lower() != text else words

    def _substitute(self, address: Address) -> Address:
        if isinstance(address, IPv4Address):
            return IPv4Address(self._v4(address.packed))
        raw = address.packed
        if raw[:12] in (_NAT64, _V4_MAPPED):
            return IPv6Address(raw[:12] + self._v4(raw[12:]))
        if raw[0] in (0, 0xFF):
            return address
        kept = 1
        if address.is_link_local:
            kept = 8
        elif raw[0] == 0xFE or raw[:2] in _V6_SECOND_KEPT:
            kept = 2
        return IPv6Address(self._rest(raw, raw[:kept], 6))

    def _v4(self, raw: bytes) -> bytes:
        first = raw[0]
        if first in _V4_KEPT or raw[:2] == b"\xa9\xfe":
            return raw
        if first not in _V4_SPECIAL:
            turn = 1 + self._number(b"first") % (len(_V4_PLAIN) - 1)
            mapped = _V4_PLAIN[(_V4_PLAIN.index(first) + turn) % len(_V4_PLAIN)]
            return self._rest(raw, bytes((mapped,)), 4)
        return self._rest(raw, bytes((first,)), 4)

    def _rest(self, raw: bytes, done: bytes, version: int) -> bytes:
        """Return `done`, extended by the substitutes of the remaining bytes of `raw`."""
        for position in range(len(done), len(raw)):
            above = raw[:position]
            cuts = set(self._cuts.get(_tag(above, version), ()))
            kept = 0
            if version == 4 and position == 1:
                kept = _V4_SECOND_KEPT.get(above[0], 0)
            done += bytes((self._byte(raw[position], _tag(above, version), cuts, kept),))
        return done

    def _byte(self, value: int, above: bytes, cuts: set[int], kept: int) -> int:
        """Return a byte's substitute, digit by digit between prefix lengths; zeros stay."""
        result = low = 0
        for high in sorted({*cuts, kept, 8} - {0}):
            count = 1 << (high - low)
            digit = value >> (8 - high) & (count - 1)
            if digit and count > 2 and high > kept:
                seen = bytes((value >> (8 - low) << (8 - low) & 0xFF, low, high)) if low else b""
                turn = 1 + self._number(b"byte", above, seen) % (count - 2)
                digit = 1 + (digit - 1 + turn) % (count - 1)
            result = result << (high - low) | digit
            low = high
        return result

    def _digest(self, *words: bytes) -> bytes:
        return hmac.digest(self._key, b"\0".join(words), "sha256")

    def _number(self, *words: bytes) -> int:
        return int.from_bytes(self._digest(*words)[:8])


def _tag(above: bytes, version: int) -> bytes:
    return bytes((version,)) + above
