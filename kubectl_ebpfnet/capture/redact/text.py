"""Replace addresses and names of a bundle, each by the same substitute everywhere.

The answer from a redacted capture is the original's answer with other names: routes still match,
MACs still pair, labels still select. A random key, which is thrown away, makes the substitutes.

Replaced: IPv4, IPv6 and MAC addresses; names of pods, namespaces, nodes, services and every other
object; values of labels; DNS names. Kept: names of every cluster (default, kube-system, kubernetes,
cilium), words that the tools themselves print, and the addresses that addresses.py keeps. words.py
tells where in a text a name is replaced.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from kubectl_ebpfnet.capture.redact.addresses import AddressMap
from kubectl_ebpfnet.capture.redact.names import COMMON, names_of
from kubectl_ebpfnet.capture.redact.words import KEY, in_keys, pattern, protected_pattern
from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import untrusted
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle, Output, Place, Record, bundle_of
from kubectl_ebpfnet.model.net import Address

NOTE = "Addresses and names are replaced."
_MAC = r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])"
_V6_WORD = r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*"
_V6 = rf"{_V6_WORD}(?![\w:])"
_V4_WORD = r"(?<![\d.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_V4 = rf"{_V4_WORD}(?!\d|\.\d)"
_BYTES = (
    r'"\w*(?:[Aa]ddr|IP|Ip|[Ee]ndpoint)\w*"\s*:\s*\[\s*[0-9]{1,3}(?:\s*,\s*[0-9]{1,3}){3,15}\s*\]'
)
_WITH_LENGTH = re.compile(rf"({_V4_WORD}|{_V6_WORD})/([0-9]{{1,3}})")
_ADDR_JSON = re.compile(
    r'"local":\s*"([^"]+)"(?:,\s*"broadcast":\s*"[^"]*")?,\s*"prefixlen":\s*([0-9]{1,3})'
)
_NUMBER = re.compile(r"[0-9]+")
_HEX_ADDRESS = re.compile(r"[0-9a-f]{32}")
PROC_ROUTE = ("cat", "/proc/net/route")
PROC_ROUTE6 = ("cat", "/proc/net/ipv6_route")


def redact(bundle: Bundle, key: bytes | None = None) -> Bundle:
    """Return a bundle with substitutes; long outputs are rewritten as they are read.

    Args:
        bundle: the original, which is not changed.
        key: of the substitution; None for a random key.
    """
    key = key or secrets.token_bytes(32)
    words = Substitution(AddressMap(key, prefixes(bundle)), names_of(bundle))
    note = words.text(bundle.note)
    note = f"{note} {NOTE}" if note else NOTE
    return bundle_of((words.record(r) for r in bundle.records), bundle.source, note)


def prefixes(bundle: Bundle) -> Iterator[tuple[Address, int]]:
    """Yield every network in a bundle's records: an address in it, and its prefix length."""
    for record in bundle.records:
        for line in _lines(record.stdout):
            text = line.decode("latin-1")
            found = [*_WITH_LENGTH.findall(text), *_ADDR_JSON.findall(text)]
            if record.argv == PROC_ROUTE:
                found += _proc_route_networks(text)
            elif record.argv == PROC_ROUTE6:
                columns = text.split()
                found += _proc_route6_networks(columns)
            elif record.argv[:1] == ("route",):
                columns = text.split()
                if len(columns) > 2:
                    found.append((columns[0], str(_mask_length(columns[2]))))
            for word, length in found:
                try:
                    address = ip_address(word)
                except ValueError:
                    continue
                if int(length) <= address.max_prefixlen:
                    yield address, int(length)


@dataclass(slots=True)
class Rewritten:
    """Output that is rewritten line by line as it is read; `whole` rewrites it at once."""

    output: Output
    rewrite: Callable[[bytes], bytes]
    whole: bool = False  # JSON: an address may be spread over lines

    def read(self) -> bytes:
        """Return the whole output."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the output in pieces, which end with lines."""
        if self.whole:
            yield self.rewrite(self.output.read())
            return
        for line in _lines(self.output):
            yield self.rewrite(line)


class Substitution:
    """The substitutes of one bundle."""

    def __init__(self, addresses: AddressMap, names: dict[str, str]) -> None:
        """
        Args:
            addresses: gives the substitute of an address.
            names: name → substitute.
        """
        self.addresses = addresses
        self.names = names
        address = rf"(?P<mac>{_MAC})|(?P<v6>{_V6})|(?P<v4>{_V4})"
        protected = protected_pattern(COMMON, list(names))
        words = rf"{address}|(?P<kept>{protected})|(?P<name>{pattern(names)})"
        self._word = re.compile(rf"(?P<bytes>{_BYTES})|(?P<key>{KEY})|{words}")
        self._in_user_key = re.compile(words)
        self._in_key = re.compile(rf"{address}|(?P<name>{pattern(in_keys(names))})")
        self._rewriters: dict[str, Callable[[str], str]] = {
            "kept": str,
            "key": self._key,
            "name": names.__getitem__,
            "mac": addresses.mac,
            "bytes": self._byte_list,
            "v4": self._address,
            "v6": self._address,
        }

    def record(self, record: Record) -> Record:
        """Return a record with substitutes."""
        rewrite = self.line
        if record.argv == PROC_ROUTE:
            rewrite = self._proc_route
        elif record.argv == PROC_ROUTE6:
            rewrite = self._proc_route6
        return dataclasses.replace(
            record,
            place=self.place(record.place),
            argv=tuple(map(self.text, record.argv)),
            stdout=Rewritten(record.stdout, rewrite, bool({"json", "-j"} & set(record.argv))),
            stderr=self.line(record.stderr),
            error=self.text(record.error),
            denied=self.text(record.denied),
            line_filter=tuple(map(self.text, record.line_filter)),
        )

    def place(self, place: Place) -> Place:
        """Return a place with substitutes."""
        return dataclasses.replace(
            place,
            node=self.names.get(place.node, place.node),
            namespace=self.names.get(place.namespace, place.namespace),
            pod=self.names.get(place.pod, place.pod),
        )

    def line(self, line: bytes) -> bytes:
        """Return output with substitutes; bytes that are no text stay."""
        return self.text(line.decode("latin-1")).encode("latin-1")

    def text(self, text: str) -> str:
        """Return text with substitutes."""
        return self._word.sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        assert match.lastgroup is not None, "every branch of the patterns has a name"
        return self._rewriters[match.lastgroup](match[0])

    def _key(self, quoted: str) -> str:
        """Return a key of JSON, in its quotes, with substitutes."""
        key = quoted[1:-1]
        if key in self.names:
            return quoted  # a key is no name, even if it equals one
        found = self._in_user_key if "/" in key else self._in_key
        return f'"{found.sub(self._replaced, key)}"'

    def _address(self, word: str) -> str:
        # A full stop, a colon or a port after an address is not part of it.
        for end in range(len(word), 1, -1):
            if end < len(word) and word[end] not in ":.":
                continue
            try:
                address = ip_address(word[:end])
            except ValueError:
                continue
            mapped = self.addresses.address(address)
            return _written_as(word[:end], mapped) + word[end:]
        return word

    def _byte_list(self, word: str) -> str:
        head, bracket, numbers = word.partition("[")
        values = [int(number) for number in _NUMBER.findall(numbers)]
        if len(values) not in (4, 16) or max(values) > 255:
            return word
        mapped = iter(self.addresses.address(ip_address(bytes(values))).packed)
        return head + bracket + _NUMBER.sub(lambda _: str(next(mapped)), numbers)

    def _proc_route(self, line: bytes) -> bytes:
        columns = line.decode("latin-1").split("\t")
        for column in (1, 2):  # Destination and Gateway
            if len(columns) > 2 and len(columns[column]) == 8:
                try:
                    address = IPv4Address(bytes.fromhex(columns[column])[::-1])
                except ValueError:
                    continue
                mapped = self.addresses.address(address).packed[::-1]
                columns[column] = mapped.hex().upper()
        return "\t".join(columns).encode("latin-1")

    def _proc_route6(self, line: bytes) -> bytes:
        def mapped(match: re.Match[str]) -> str:
            address = self.addresses.address(IPv6Address(int(match[0], 16)))
            return address.packed.hex()

        return re.sub(r"\b[0-9a-f]{32}\b", mapped, line.decode("latin-1")).encode("latin-1")


def _written_as(word: str, address: Address) -> str:
    """Return the address in the notation of `word`."""
    if isinstance(address, IPv6Address) and "::" not in word and len(word) == 39:
        return address.exploded
    return str(address)


def _proc_route_networks(line: str) -> list[tuple[str, str]]:
    columns = line.split()
    if len(columns) < 8 or len(columns[1]) != 8:
        return []
    try:
        destination = IPv4Address(bytes.fromhex(columns[1])[::-1])
        mask = IPv4Address(bytes.fromhex(columns[7])[::-1])
    except ValueError:
        return []
    return [(str(destination), str(_mask_length(str(mask))))]


def _proc_route6_networks(columns: list[str]) -> list[tuple[str, str]]:
    if len(columns) < 2 or not _HEX_ADDRESS.fullmatch(columns[0]):
        return []
    try:
        length = untrusted.integer(f"0x{columns[1]}", "/proc/net/ipv6_route", most=128)
    except ParseError:
        return []
    return [(str(IPv6Address(int(columns[0], 16))), str(length))]


def _mask_length(mask: str) -> int:
    try:
        return int(IPv4Address(mask)).bit_count()
    except ValueError:
        return 32


def _lines(output: Output) -> Iterator[bytes]:
    """Yield lines with their newlines; the last line may lack its newline."""
    rest: list[bytes] = []
    for chunk in output.chunks():
        start = 0
        while True:
            end = chunk.find(b"\n", start) + 1
            if not end:
                break
            rest.append(chunk[start:end])
            yield b"".join(rest)
            rest, start = [], end
        if start < len(chunk):
            rest.append(chunk[start:])
    if rest:
        yield b"".join(rest)
