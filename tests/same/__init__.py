"""`make same`: an old commit and this checkout answer the same questions; it shows what differs.

clusters.py finds the recorded clusters, questions.py asks about what is in them, answer.py runs
once in each tree, differences.py compares whole answers. All know the program by its command line
alone: its rooms may move.
"""
