"""What was presumed, in words."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.presumed import Look, Presumed


def test_the_sentence_names_three_and_counts_the_rest_the_likeliest_first() -> None:
    presumed = Presumed()
    presumed.add("pods' netfilter", Look.LAST)
    presumed.add("nftables on node1")
    presumed.add("nftables on node2")
    presumed.add("nftables on node1")
    presumed.add("the sockets", Look.FIRST)
    assert list(presumed) == [
        "the sockets",
        "nftables on node1",
        "nftables on node2",
        "pods' netfilter",
    ]
    assert presumed.sentence() == (
        "not read, and presumed to be as usual: the sockets; nftables on node1; "
        "nftables on node2; 1 more (`-v` lists them)"
    )


def test_few_are_all_named_and_none_is_no_sentence() -> None:
    presumed = Presumed()
    assert not presumed
    assert presumed.sentence() == ""
    presumed.add("a")
    other = Presumed()
    other.add("b", Look.LAST)
    presumed.take(other)
    assert presumed.sentence() == "not read, and presumed to be as usual: a; b"
