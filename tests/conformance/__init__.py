"""CPython's own asyncio tests, run against asyncloop.

The interpreter's installed ``test.test_asyncio`` modules are the referee. They are
imported, never copied; ``suite.py`` says how each class is pointed at our loop, Future
and Task, and ``exclusions.toml`` lists what cannot apply to another loop, and why.

    python -m tests.conformance            # everything that applies
    python -m tests.conformance --quick    # the core, in a few minutes
"""
