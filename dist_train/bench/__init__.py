"""Measures each stage beside the systems people would otherwise use, both sides in one run.

    catalogue   which measurements there are, which of them a person asked for
    child       one process a measurement: one core, one thread, its own allocator's state
    pair        ours, peer, ours, peer ...: the median of the paired ratios and its spread
    row         one line of the result

A measurement takes a `Work` (folder, size, repeats) and gives rows. Nothing here prints; `tools/bench.py` does.
"""
