"""Random programs, run on asyncloop and on the standard loop, and compared.

`python -m tests.fuzz` (or `make fuzz`) runs many; tests/fuzz/test_fuzz.py runs a few. A program is
made from bytes alone (choices.py), so that a difference can be repeated, and shrunk.
"""
