"""The definitions of the gateway's metrics."""

from app.observe.exposition import Exposition
from app.observe.metrics import Metrics


def test_every_metric_says_what_it_means() -> None:
    """Each has a name of its own, a meaning and a unit."""
    instruments = Metrics().instruments
    assert len({instrument.name for instrument in instruments}) == len(instruments) > 20
    assert [instrument.name for instrument in instruments if not (instrument.meaning and instrument.unit)] == []


def test_a_gauge_that_only_a_provider_knows_is_shown_too() -> None:
    """A provider written elsewhere may report numbers of its own, which come and go with each scrape."""
    state = {"kimi_provider_temperature": {"oven": 180.0}}
    metrics = Metrics(lambda: state)
    assert 'kimi_provider_temperature{of="oven"} 180.0' in Exposition(metrics).text().decode()
    state.clear()
    text = Exposition(metrics).text().decode()
    assert "# HELP kimi_provider_temperature " in text
    assert "oven" not in text
