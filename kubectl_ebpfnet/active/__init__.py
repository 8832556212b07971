"""Everything that sends packets or loads programs. Nothing below imports it.

What comes of it is a record like any other; explain/ judges it.
"""
