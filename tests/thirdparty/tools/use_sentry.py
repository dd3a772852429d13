"""Sentry's asyncio integration reports what a task raises, and keeps scopes of tasks apart."""

import asyncio

import sentry_sdk
from looped import run
from sentry_sdk.integrations.asyncio import AsyncioIntegration

events = []


async def fail(n):
    sentry_sdk.set_tag("task", n)
    await asyncio.sleep(0.001)
    raise KeyError(f"from task {n}")


async def main():
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        integrations=[AsyncioIntegration()],
        before_send=lambda event, hint: events.append(event),
    )
    tasks = [asyncio.create_task(fail(n)) for n in range(3)]
    await asyncio.gather(*tasks, return_exceptions=True)


run(main())
found = sorted(
    (event["exception"]["values"][0]["value"], event["tags"]["task"]) for event in events
)
assert sorted(found) == [(f"'from task {n}'", n) for n in range(3)], found
print("works")
