"""Work for the processor goes to a pool of processes; the loop only waits for it.

What is sent must be picklable, so the functions stand at the top of the module. Workers import it
anew: what starts the program belongs below `if __name__ == "__main__"`.
"""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def count_primes(limit: int) -> int:
    sieve = bytearray([1]) * (limit + 1)
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    return sum(sieve)


def fail() -> None:
    raise ArithmeticError("raised in the other process")


async def main() -> None:
    loop = asyncio.get_running_loop()
    # Forked workers would inherit the loop's descriptors and threads; fresh ones do not.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=2, mp_context=fresh) as pool:
        limits = [10, 1_000, 100_000]
        counts = await asyncio.gather(
            *(loop.run_in_executor(pool, count_primes, limit) for limit in limits)
        )
        for limit, count in zip(limits, counts, strict=True):
            print(f"primes up to {limit}: {count}")
        print("elsewhere:", await loop.run_in_executor(pool, os.getpid) != os.getpid())
        try:
            await loop.run_in_executor(pool, fail)
        except ArithmeticError as error:
            print("caught:", error)


if __name__ == "__main__":
    asyncio.run(main())
