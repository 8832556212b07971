"""Everything that sends packets or loads programs. Nothing below imports it.

Its results are records like any other; explain/ judges them.
"""
