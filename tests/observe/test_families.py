"""The families of metrics."""

from prometheus_client import CollectorRegistry, generate_latest

from app.observe.families import Families, OwnFamilies, SharedFamilies

BOUNDS = (0.005, 0.1, 1, 20)


def counted(families: Families, registry: CollectorRegistry) -> list[str]:
    """What Prometheus is told after a little of everything."""
    answers = families.counter("answers_total", "Answers given", ("model", "status"))
    dropped = families.counter("dropped_total", "Never happened", ("model",))
    pings = families.counter("pings_total", "Not yet happened")
    present = families.gauge("present", "Those who are there")
    seconds = families.histogram("answer_seconds", "How long it took", ("model",), bounds=BOUNDS)
    lag = families.histogram("lag_seconds", "Not yet measured", bounds=BOUNDS)
    answers.add(("kimi", "200"))
    answers.add(("kimi", "200"), 41)
    answers.add(('a "quoted"\nname', "500"))
    present.add()
    present.add()
    present.add(amount=-1)
    for duration in (0, 0.005, 0.0051, 0.1, 19.9, 20, 21):
        seconds.observe(("kimi",), duration)
    assert None not in (dropped, pings, lag)
    # When a family began is told by prometheus_client only; nobody asks for it.
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_our_own_families_say_what_prometheus_clients_do() -> None:
    """Names, labels, buckets and numbers are the same to the letter, whether or not processes share them."""
    own, shared = CollectorRegistry(), CollectorRegistry()
    assert counted(OwnFamilies(own), own) == counted(SharedFamilies(shared), shared)
