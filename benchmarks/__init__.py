"""Benchmarks of asyncloop against the other event loops that Python has.

Run ``python -m benchmarks --help`` from the root of a checkout; docs/benchmarks.md says
what each row measures and how a row is added.
"""
