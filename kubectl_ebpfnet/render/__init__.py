"""Answers as text: pure functions, the only place that knows colour, tables and JSON.

Every text of a cluster passes text/style.py `escape` once, where it is put into a line.
"""
