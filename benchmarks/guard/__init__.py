"""Guard against regressions: instructions per operation of the hot paths, under callgrind.

Instructions are counted, not timed, so the numbers are repeatable on a busy machine, and a
small tolerance is enough. ``python -m benchmarks.guard`` compares with the counts kept in this
folder; ``--update`` keeps new ones.
"""
