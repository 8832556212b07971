"""Tests of explain/views."""
