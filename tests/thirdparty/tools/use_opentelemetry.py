"""OpenTelemetry's asyncio instrumentation: a span and a measured time for each named coroutine."""

import asyncio
import os

os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "named"
from looped import run
from opentelemetry import trace
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
AsyncioInstrumentor().instrument()


async def named():
    await asyncio.sleep(0.001)
    return 1


async def main():
    with trace.get_tracer("test").start_as_current_span("parent"):
        assert await asyncio.create_task(named()) == 1
        assert await asyncio.gather(named(), named()) == [1, 1]


run(main())
spans = exporter.get_finished_spans()
names = [span.name for span in spans]
assert names.count("asyncio coro-named") >= 3, names
parent = next(span for span in spans if span.name == "parent")
assert all(span.parent.span_id == parent.context.span_id for span in spans if span is not parent)
print("works")
