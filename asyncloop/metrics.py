"""The statistics of the loops of this process for OpenTelemetry and Prometheus.

    pip install asyncloop[opentelemetry]        asyncloop.metrics.opentelemetry()
    pip install asyncloop[prometheus]           asyncloop.metrics.prometheus()

docs/metrics.md lists what is exported. It is read in the exporter's thread, and needs nothing of
the loops: one that is blocked is told of as well.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _core
from ._stats import Delay, LoopStats, stats_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

__all__ = ["METRICS", "Metric", "opentelemetry", "prometheus"]

_PREFIX = "asyncloop.eventloop."
_Attributes = dict[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric, under its OpenTelemetry name.

    kind: "counter" only grows, "updown" is an amount now, "gauge" a value of the time since it was
        last read
    unit: as OpenTelemetry writes units
    attributes: beside those that tell the loops apart: name and value
    """

    name: str
    kind: Literal["counter", "updown", "gauge"]
    unit: str
    description: str
    value: Callable[["Interval"], float]
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def prometheus_name(self) -> str:
        name = self.name.replace(".", "_")
        name += {"s": "_seconds", "By": "_bytes", "1": "_ratio"}.get(self.unit, "")
        return name + ("_total" if self.kind == "counter" else "")


class Interval:
    """Statistics of a loop, and what they were when they were last read."""

    def __init__(self, now: LoopStats, before: LoopStats | None) -> None:
        self.now = now
        self.delay: Delay = now.delay if before is None else now.delay - before.delay
        busy = now.busy - (before.busy if before is not None else 0.0)
        total = busy + now.idle - (before.idle if before is not None else 0.0)
        self.utilization = min(1.0, max(0.0, busy / total)) if total > 0 else 0.0


def _counter(name: str, unit: str, text: str, value: Callable[[LoopStats], float]) -> Metric:
    return Metric(_PREFIX + name, "counter", unit, text, lambda interval: value(interval.now))


def _updown(name: str, unit: str, text: str, value: Callable[[LoopStats], float]) -> Metric:
    return Metric(_PREFIX + name, "updown", unit, text, lambda interval: value(interval.now))


def _delay(name: str, text: str, value: Callable[[Delay], float]) -> Metric:
    text += " by which what came due was late"
    return Metric(
        _PREFIX + "delay." + name, "gauge", "s", text, lambda interval: value(interval.delay)
    )


def _time(state: str, text: str, value: Callable[[LoopStats], float]) -> Metric:
    return Metric(
        _PREFIX + "time",
        "counter",
        "s",
        text,
        lambda interval: value(interval.now),
        (("asyncloop.eventloop.state", state),),
    )


def _io(direction: str, value: Callable[[LoopStats], float]) -> Metric:
    return Metric(
        _PREFIX + "io",
        "counter",
        "By",
        "Bytes of transports and socket methods",
        lambda interval: value(interval.now),
        (("network.io.direction", direction),),
    )


METRICS: tuple[Metric, ...] = (
    _time("active", "Time of the loop's runs", lambda stats: stats.busy),
    _time("idle", "Time of the loop's runs", lambda stats: stats.idle),
    Metric(
        _PREFIX + "utilization",
        "gauge",
        "1",
        "Share of the time in which the loop was active",
        lambda interval: interval.utilization,
    ),
    _delay("mean", "Mean", lambda delay: delay.mean),
    _delay("p50", "Median", lambda delay: delay.percentile(50)),
    _delay("p90", "90th percentile", lambda delay: delay.percentile(90)),
    _delay("p99", "99th percentile", lambda delay: delay.percentile(99)),
    _delay("max", "Longest time", lambda delay: delay.max),
    _counter("turns", "{turn}", "Iterations", lambda stats: stats.turns),
    _counter("callbacks", "{callback}", "Callbacks and events", lambda stats: stats.callbacks),
    _counter("task_steps", "{step}", "How often tasks went on", lambda stats: stats.task_steps),
    _counter(
        "thread_calls",
        "{call}",
        "Calls that came from other threads",
        lambda stats: stats.calls_from_threads,
    ),
    _counter("stalls", "{stall}", "Blocks that a watchdog has seen", lambda stats: stats.stalls),
    _counter("spins", "{spin}", "Spins that a watchdog has seen", lambda stats: stats.spins),
    _io("receive", lambda stats: stats.bytes_in),
    _io("transmit", lambda stats: stats.bytes_out),
    _updown("ready", "{callback}", "What waits for its turn", lambda stats: stats.ready),
    _updown("timers", "{timer}", "Scheduled timers", lambda stats: stats.timers),
    _updown("tasks", "{task}", "Tasks that are not done", lambda stats: stats.tasks),
    _updown(
        "descriptors", "{descriptor}", "Watched descriptors", lambda stats: stats.descriptors
    ),
    _updown("transports", "{transport}", "Open transports", lambda stats: stats.transports),
)

#: How late, in seconds: the buckets of Prometheus' histogram.
_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


def _running() -> Iterator[tuple[_Attributes, LoopStats]]:
    names = {each.ident: each.name for each in threading.enumerate()}
    for number, thread, loop in _core._running_loops():
        attributes = {
            "asyncloop.eventloop.id": str(number),
            "thread.name": names.get(thread, str(thread)),
        }
        yield attributes, stats_of(loop._counters())


class _Reader:
    """Keeps for each loop what was read the last time."""

    def __init__(self) -> None:
        self._before: dict[int, LoopStats] = {}
        self._lock = threading.Lock()

    def read(self) -> list[tuple[_Attributes, Interval]]:
        with self._lock:
            before, self._before = self._before, {}
            intervals = []
            for attributes, now in _running():
                intervals.append((attributes, Interval(now, before.get(now.loop))))
                self._before[now.loop] = now
            return intervals


# -- OpenTelemetry ------------------------------------------------------------------------


def opentelemetry(meter_provider: "MeterProvider | None" = None) -> None:
    """Export the statistics of all running loops by OpenTelemetry, from now on.

    meter_provider: None takes the global one

    Each instrument is asynchronous: nothing happens but when it is read. Gauges are about the time
    since they were last read. Raises ImportError without the package opentelemetry-api.
    """
    try:
        from opentelemetry import metrics as api
    except ImportError as error:
        raise ImportError(
            "asyncloop.metrics.opentelemetry() needs the package opentelemetry-api: "
            "pip install asyncloop[opentelemetry]"
        ) from error
    from . import __version__

    meter = api.get_meter("asyncloop", __version__, meter_provider)
    create = {
        "counter": meter.create_observable_counter,
        "updown": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    for name in dict.fromkeys(metric.name for metric in METRICS):
        same = [metric for metric in METRICS if metric.name == name]
        create[same[0].kind](
            name,
            callbacks=[_observer(same, api.Observation)],
            unit=same[0].unit,
            description=same[0].description,
        )


def _observer(metrics: list[Metric], observation: Any) -> Callable[[Any], Iterable[Any]]:
    # Each of its own: instruments are read one after the other, and not always all.
    reader = _Reader()

    def observe(options: Any) -> Iterable[Any]:
        for attributes, interval in reader.read():
            for metric in metrics:
                yield observation(metric.value(interval), attributes | dict(metric.attributes))

    return observe


# -- Prometheus ------------------------------------------------------------------------------


def prometheus(registry: "CollectorRegistry | None" = None) -> Any:
    """Export the statistics of all running loops to Prometheus; returns what was registered.

    registry: None takes `prometheus_client.REGISTRY`; its unregister() ends it

    The delay is a histogram, as of one probe in each millisecond. Gauges are about the time since
    the last scrape. Raises ImportError without the package prometheus-client, and ValueError if it
    is registered there already.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise ImportError(
            "asyncloop.metrics.prometheus() needs the package prometheus-client: "
            "pip install asyncloop[prometheus]"
        ) from error
    collector = _Collector()
    (prometheus_client.REGISTRY if registry is None else registry).register(collector)
    return collector


class _Collector:
    def __init__(self) -> None:
        self._reader = _Reader()
        self._shown: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Any]:
        return self._families([])

    def collect(self) -> Iterable[Any]:
        return self._families(self._reader.read())

    def _families(self, intervals: list[tuple[_Attributes, Interval]]) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        own = [_label(key) for key in ("asyncloop.eventloop.id", "thread.name")]
        for name in dict.fromkeys(metric.name for metric in METRICS):
            same = [metric for metric in METRICS if metric.name == name]
            kind = CounterMetricFamily if same[0].kind == "counter" else GaugeMetricFamily
            labels = own + [_label(key) for key, _ in same[0].attributes]
            family = kind(same[0].prometheus_name, same[0].description, labels=labels)
            for attributes, interval in intervals:
                for metric in same:
                    values = [*attributes.values(), *(value for _, value in metric.attributes)]
                    family.add_metric(values, metric.value(interval))
            yield family
        yield self._histogram(own, intervals)

    def _histogram(self, labels: list[str], intervals: list[tuple[_Attributes, Interval]]) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(
            (_PREFIX + "delay").replace(".", "_") + "_seconds",
            "Time by which what came due was late, as of one probe in each millisecond",
            labels=labels,
        )
        with self._lock:
            before = self._shown
            if intervals:
                self._shown = {}
            for attributes, interval in intervals:
                delay = interval.now.delay
                counts = [delay.at_most(bound) * 1000 for bound in _BUCKETS]
                counts += [delay.total * 1000, delay.mean * delay.total * 1000]
                # How late the turn that goes on will have been is not known before its end: what
                # was said before is never taken back, which would look like a new process.
                number = attributes["asyncloop.eventloop.id"]
                counts = list(map(max, counts, before.get(number, counts)))
                self._shown[number] = counts
                *buckets, total, late = counts
                pairs = [*zip(map(str, _BUCKETS), buckets, strict=True), ("+Inf", total)]
                family.add_metric(list(attributes.values()), pairs, sum_value=late)
        return family


def _label(attribute: str) -> str:
    return attribute.replace(".", "_")
