"""The event loop policy, for programs that choose their loop that way.

Apart from the package itself because asyncio's policies are deprecated from Python 3.14 on and
gone in 3.16. The first ways to switch asyncloop on are `asyncloop.run` and a `loop_factory`.
"""

import asyncio
import sys
import warnings

from ._loop import Loop

with warnings.catch_warnings():
    # Which policy is the base of ours is our affair; setting one still warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    _DefaultPolicy = asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(_DefaultPolicy):
    """asyncio's default policy with asyncloop's loops.

    Everything but the type of a new loop is as in the default policy: which thread gets a loop,
    when, and with which warning.
    """

    def new_event_loop(self) -> Loop:
        """Return a new, open loop of asyncloop. It does not become the current one."""
        return Loop()


def set_policy() -> None:
    """Set asyncloop's policy without a word about policies being deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy())


def install() -> None:
    """Let asyncio make its loops through asyncloop from now on, in the whole process.

    Sets `EventLoopPolicy` as asyncio's policy, so that `asyncio.run`, `asyncio.new_event_loop` and
    what else asks the policy give loops of asyncloop. Loops that exist already stay what they are.
    Code that names a loop type or a factory of its own is not affected.

    Prefer `asyncloop.run(main())` or `asyncio.run(main(), loop_factory=asyncloop.new_event_loop)`:
    Python 3.14 deprecates policies, so this function warns there, and Python 3.16 drops them.
    """
    if sys.version_info >= (3, 14):
        warnings.warn(
            "asyncloop.install() sets an event loop policy, and Python 3.16 will have none: use "
            "asyncloop.run(main()) or "
            "asyncio.run(main(), loop_factory=asyncloop.new_event_loop)",
            DeprecationWarning,
            stacklevel=2,
        )
    set_policy()
