"""Each command beside what a production cluster does to it: a clear answer in time, nothing left.

`make faults`: minutes, and some of it is everybody's in the lab (its API server restarts, a kubelet
is dead), so neither CI nor `make lab-test` runs it. What each run said, and how long it took, is
printed at the end. What needs no cluster stands in tests/cluster and tests/collect.
"""
