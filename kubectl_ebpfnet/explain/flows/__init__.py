"""Tracked flows: conntrack and NAT entries of one flow, joined through its translations."""
