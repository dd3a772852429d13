"""ddtrace's spans: a task's are below the one in which it was made, and tasks do not mix them."""

import asyncio
import os

os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "false"
os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "false"
os.environ["DD_TRACE_AGENT_URL"] = "http://127.0.0.1:1"
os.environ["DD_TRACE_STARTUP_LOGS"] = "false"

import logging

from ddtrace.trace import tracer
from looped import run

logging.disable(logging.CRITICAL)


async def child(n):
    with tracer.trace(f"child {n}") as span:
        await asyncio.sleep(0.001)
        assert tracer.current_span() is span
        return span.parent_id


async def main():
    with tracer.trace("parent") as parent:
        parents = await asyncio.gather(*(child(n) for n in range(3)))
        assert parents == [parent.span_id] * 3, parents
        assert tracer.current_span() is parent


run(main())
print("works", flush=True)
os._exit(0)  # it would wait for an agent
