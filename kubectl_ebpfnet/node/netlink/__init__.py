"""Netlink: links, routes, rules, neighbours and nf_conntrack of the current network namespace."""
