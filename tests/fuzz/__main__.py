"""python -m tests.fuzz: many random programs; ends with 1 after a difference."""

import argparse
import ast
import faulthandler
import gc
import multiprocessing
import sys
import time

from . import compare
from .choices import program_bytes


def work(kind, seeds, limit):
    """(programs run, differences found) for a list of program numbers."""
    gc.collect()
    gc.freeze()
    found, done = [], 0
    for seed in seeds:
        faulthandler.dump_traceback_later(600, exit=True)  # a difference is shrunk meanwhile
        text = compare.check(kind, program_bytes(seed))
        done += 1
        if text:
            found.append((seed, text))
            if len(found) >= limit:
                break
    faulthandler.cancel_dump_traceback_later()
    return done, found


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", choices=[*compare.KINDS], action="append")
    parser.add_argument("--programs", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="number of the first program")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=int, default=3, help="differences to stop after, a batch")
    parser.add_argument("--program", help="one program, as a report prints it")
    parser.add_argument("--on", default="asyncloop", help="the implementation, for --program")
    options = parser.parse_args()
    kinds = options.kind or [*compare.KINDS]
    if options.program:
        program = ast.literal_eval(options.program)
        lines = compare.explained(kinds[0], options.on, program)
        print(*lines or ["no difference"], sep="\n")
        return bool(lines)
    status = 0
    for kind in kinds:
        began = time.monotonic()
        seeds = range(options.seed, options.seed + options.programs)
        batches = [(kind, seeds[i : i + 500], options.limit) for i in range(0, len(seeds), 500)]
        if options.jobs == 1:
            results = [work(*batch) for batch in batches]
        else:
            context = multiprocessing.get_context("spawn")
            with context.Pool(options.jobs, maxtasksperchild=20) as pool:
                results = pool.starmap(work, batches, chunksize=1)
        done = sum(result[0] for result in results)
        found = [one for result in results for one in result[1]]
        for seed, text in found[:20]:
            print(f"=== {kind} {seed}\n{text}", flush=True)
        took = time.monotonic() - began
        print(f"{kind}: {done} programs, {len(found)} differences, {took:.0f} s", flush=True)
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main())
