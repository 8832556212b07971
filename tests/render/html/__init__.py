"""Tests of kubectl_ebpfnet.render.html."""
