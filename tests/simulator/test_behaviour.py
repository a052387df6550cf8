import json
from dataclasses import asdict

import pytest

from simulator.behaviour import FAILURES, PAGE_FAILURES, Behaviour, merge
from simulator.failures import MESSAGE_FAILURES
from simulator.failures import PAGE_FAILURES as PAGE_FAILURE_TABLE


def test_merging_changes_only_what_is_named() -> None:
    """A merged object leaves the other knobs alone."""
    before = Behaviour(latency_s=2)
    assert merge(before, {"reply": "x", "any_model": True}) == Behaviour(latency_s=2, reply="x", any_model=True)


def test_every_knob_survives_json() -> None:
    """What the control endpoint shows can be sent back to it."""
    assert merge(Behaviour(), json.loads(json.dumps(asdict(Behaviour())))) == Behaviour()


@pytest.mark.parametrize(
    "changes",
    [
        {"no_such_knob": 1},
        {"latency_s": "1"},
        {"latency_s": -1},
        {"page_latency_s": float("nan")},
        {"char_limit": True},
        {"huge_bytes": 1.5},
        {"any_model": 1},
        {"reply": 7},
        {"failure": "no_such_failure"},
        {"failure_times": 0},
        {"page_failure": "moderated"},
        {"page_style": None},
        {"retry_after_s": "soon"},
    ],
)
def test_a_bad_knob_is_refused_by_name(changes: dict[str, object]) -> None:
    """The error names the knob that is unknown or has a wrong value."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        merge(Behaviour(), changes)


def test_only_an_object_can_be_merged() -> None:
    """Any other JSON is refused, too, as a ValueError."""
    with pytest.raises(ValueError, match="object"):
        merge(Behaviour(), ["failure"])


def test_a_new_failure_does_not_inherit_the_times_of_the_old_one() -> None:
    """A failure set without its times lasts until changed."""
    assert merge(Behaviour(failure="html", failure_times=2), {"failure": "refused"}).failure_times is None


def test_every_failure_name_has_its_row() -> None:
    """The names that the knobs accept are the names that the site can act out."""
    assert set(FAILURES) == set(MESSAGE_FAILURES)
    assert set(PAGE_FAILURES) == set(PAGE_FAILURE_TABLE)
