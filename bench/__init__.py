"""Benchmarks: pyhess beside its peers, the machine's own limits, and a record of both.

Run ``python -m bench --help``. One concern per file:

========== ======================================================================
cases      networks, data and the sizes that are compared
peers/     one adapter per library, all with the same few functions
ours       pyhess seen through those same functions
experiment one comparison: contenders, answers, and how they are checked
timing     interleaved, repeated, warm measurements
roofline   what the machine could do: matrix products, shapes, memory
records    rows and the JSON files that keep them
table      text, plots: figures, compare: two records side by side
targets    what pyhess promises, and whether a record shows it
suites/    which comparisons are made
========== ======================================================================
"""
