"""asyncloop.metrics: what is exported, against its page and against the statistics.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import asyncio
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import asyncloop
from asyncloop import metrics

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
KINDS = {"counter": "counter", "updown": "up-down counter", "gauge": "gauge"}


def page_rows():
    """{(name, attributes): (kind, unit, Prometheus name)} of the page's table."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `asyncloop.eventloop."):
            cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
            name, kind, unit, attribute, prometheus, _ = cells
            for value in re.findall(r"[\w.]+", attribute.partition("=")[2]) or [""]:
                key = attribute.partition("=")[0].strip()
                rows[name, key, value] = (kind, unit, prometheus)
    return rows


def test_the_page_lists_what_is_exported():
    exported = {}
    for metric in metrics.METRICS:
        ((key, value),) = metric.attributes or (("", ""),)
        exported[metric.name, key, value] = (
            KINDS[metric.kind],
            metric.unit,
            metric.prometheus_name,
        )
    assert page_rows() == exported


def test_names_follow_the_conventions():
    for metric in metrics.METRICS:
        assert re.fullmatch(r"asyncloop\.eventloop(\.[a-z]+(_[a-z]+)*|\.p\d\d)+", metric.name)
        assert metric.unit in ("s", "By", "1") or re.fullmatch(r"\{[a-z]+\}", metric.unit)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.prometheus_name)
        assert metric.description and not metric.description.endswith(".")


# -- OpenTelemetry ---------------------------------------------------------------------


@pytest.fixture
def otel():
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    metrics.opentelemetry(provider)

    def read():
        """{name: {attributes without the thread's: value}}, and what each metric says of itself."""
        values, about = {}, {}
        data = reader.get_metrics_data()
        for scope in data.resource_metrics[0].scope_metrics if data else []:
            assert scope.scope.name == "asyncloop"
            assert scope.scope.version == asyncloop.__version__
            for metric in scope.metrics:
                about[metric.name] = metric
                for point in metric.data.data_points:
                    values.setdefault(metric.name, {})[frozenset(point.attributes.items())] = (
                        point.value
                    )
        return values, about

    yield read
    provider.shutdown()


def of_loop(values, number, **attributes):
    wanted = {("asyncloop.eventloop.id", str(number)), *attributes.items()}
    (value,) = [value for key, value in values.items() if wanted <= key]
    return value


def test_opentelemetry_exports_every_metric(otel):
    async def main():
        return otel(), asyncio.get_running_loop().stats()

    (values, about), stats = asyncloop.run(main())
    assert set(values) == {metric.name for metric in metrics.METRICS}
    for metric in metrics.METRICS:
        assert about[metric.name].unit == metric.unit
        kind = type(about[metric.name].data).__name__
        assert kind == ("Gauge" if metric.kind == "gauge" else "Sum")
        if metric.kind != "gauge":
            assert about[metric.name].data.is_monotonic == (metric.kind == "counter")
    turns = of_loop(values["asyncloop.eventloop.turns"], stats.loop)
    assert turns == stats.turns
    assert of_loop(values["asyncloop.eventloop.tasks"], stats.loop) == 1
    for key in values["asyncloop.eventloop.turns"]:
        assert dict(key)["thread.name"] == threading.current_thread().name


def test_what_a_watchdog_sees_is_exported(otel):
    told = threading.Event()

    async def main():
        number = asyncio.get_running_loop().stats().loop
        for _ in range(200):
            time.sleep(0.1)  # the loop is blocked until that was seen
            if told.is_set():
                break
        values, _ = otel()
        return number, values

    with asyncloop.watchdog(0.05, on_stall=lambda stall: told.set()):
        number, values = asyncloop.run(main())
    assert of_loop(values["asyncloop.eventloop.stalls"], number) == 1
    assert of_loop(values["asyncloop.eventloop.spins"], number) == 0


def test_opentelemetry_gauges_are_of_the_time_between(otel):
    async def main():
        number = asyncio.get_running_loop().stats().loop
        otel()
        time.sleep(0.1)
        await asyncio.sleep(0)
        busy, _ = otel()
        await asyncio.sleep(0.2)
        idle, _ = otel()
        return number, busy, idle

    number, busy, idle = asyncloop.run(main())
    name = "asyncloop.eventloop.utilization"
    assert of_loop(busy[name], number) > 0.9
    assert of_loop(idle[name], number) < 0.5
    assert of_loop(busy["asyncloop.eventloop.delay.p90"], number) > 0.05
    assert of_loop(idle["asyncloop.eventloop.delay.p50"], number) == 0
    active = {"asyncloop.eventloop.state": "active"}
    time_name = "asyncloop.eventloop.time"
    assert of_loop(idle[time_name], number, **active) >= of_loop(busy[time_name], number, **active)


def test_two_loops_stay_apart_also_while_one_is_blocked(otel):
    ready, go_on = threading.Event(), threading.Event()
    numbers = []

    async def blocks():
        numbers.append(asyncio.get_running_loop().stats().loop)
        ready.set()
        assert go_on.wait(20)

    async def main():
        numbers.append(asyncio.get_running_loop().stats().loop)
        return otel()[0]

    thread = threading.Thread(target=asyncloop.run, args=(blocks(),), name="the blocked one")
    thread.start()
    assert ready.wait(20)
    values = asyncloop.run(main())
    go_on.set()
    thread.join()
    keys = [dict(key) for key in values["asyncloop.eventloop.tasks"]]
    assert {key["asyncloop.eventloop.id"] for key in keys} == set(map(str, numbers))
    assert "the blocked one" in {key["thread.name"] for key in keys}


def test_without_a_loop_nothing_is_exported(otel):
    values, _ = otel()
    assert not values


# -- Prometheus -------------------------------------------------------------------------


@pytest.fixture
def registry():
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    metrics.prometheus(registry)
    return registry


def test_prometheus_exports_every_metric(registry):
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        time.sleep(0.1)
        return list(registry.collect()), loop.stats()

    families, stats = asyncloop.run(main())
    names = {metric.prometheus_name.removesuffix("_total") for metric in metrics.METRICS}
    assert {family.name for family in families} == names | {"asyncloop_eventloop_delay_seconds"}
    samples = {}
    for family in families:
        for sample in family.samples:
            assert sample.labels["asyncloop_eventloop_id"] == str(stats.loop)
            samples.setdefault(sample.name, []).append(sample)
    (turns,) = samples["asyncloop_eventloop_turns_total"]
    assert turns.value == stats.turns
    times = samples["asyncloop_eventloop_time_seconds_total"]
    assert {each.labels["asyncloop_eventloop_state"] for each in times} == {"active", "idle"}
    buckets = samples["asyncloop_eventloop_delay_seconds_bucket"]
    counts = [bucket.value for bucket in buckets]
    assert counts == sorted(counts)
    assert buckets[-1].labels["le"] == "+Inf"
    (count,) = samples["asyncloop_eventloop_delay_seconds_count"]
    assert count.value == counts[-1] >= 100  # one for each millisecond
    by_bound = {bucket.labels["le"]: bucket.value for bucket in buckets}
    assert by_bound["10.0"] - by_bound["0.05"] >= 40


def test_prometheus_writes_its_text(registry):
    client = pytest.importorskip("prometheus_client")

    async def main():
        return client.generate_latest(registry).decode()

    text = asyncloop.run(main())
    for metric in metrics.METRICS:
        assert f"\n{metric.prometheus_name}{{" in text


def test_prometheus_twice(registry):
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.prometheus(registry)


def test_prometheus_takes_nothing_back(registry, monkeypatch):
    """A count that went back would be taken for that of a new process, and added as a whole."""
    from dataclasses import replace

    (collector,) = registry._collector_to_names
    loop = asyncloop.new_event_loop()
    loop.close()
    stats = loop.stats()
    bucket = next(i for i, low in enumerate(stats.delay.bounds) if low >= 0.1) - 1
    seconds = [0.0] * len(stats.delay.bounds)
    seconds[bucket] = 1.0
    shown = []
    # What is known of the bucket in which 100 ms are is refined by what comes later.
    for longest in (0.1, 0.2):
        delay = replace(stats.delay, seconds=tuple(seconds), max=longest)
        interval = metrics.Interval(replace(stats, delay=delay), None)
        attributes = {"asyncloop.eventloop.id": "1", "thread.name": "t"}
        monkeypatch.setattr(collector._reader, "read", lambda read=(attributes, interval): [read])
        (histogram,) = (each for each in collector.collect() if each.type == "histogram")
        shown.append({(s.name, s.labels.get("le")): s.value for s in histogram.samples})
    assert shown[0].keys() == shown[1].keys()
    assert all(shown[0][key] <= shown[1][key] for key in shown[0])
    assert shown[0]["asyncloop_eventloop_delay_seconds_bucket", "0.1"] == pytest.approx(1000)


def test_prometheus_unregister():
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    collector = metrics.prometheus(registry)
    registry.unregister(collector)
    assert not list(registry.collect())
    metrics.prometheus(registry)


# -- without the packages ----------------------------------------------------------------


@pytest.mark.parametrize("package", ["opentelemetry", "prometheus"])
def test_a_missing_package_is_named(package):
    code = f"""
    import sys
    import asyncloop.metrics

    sys.modules["opentelemetry"] = sys.modules["prometheus_client"] = None
    try:
        asyncloop.metrics.{package}()
    except ImportError as error:
        assert "pip install asyncloop[{package}]" in str(error), error
    else:
        raise SystemExit("it went on")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_import_of_asyncloop_brings_none_of_it():
    code = """
    import sys, asyncloop
    print([name for name in sys.modules if name.endswith(("asyncloop.metrics", "_stats"))])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
