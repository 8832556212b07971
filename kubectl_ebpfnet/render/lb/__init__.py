"""The report of probe-lb as text, and what changed since the last one."""
