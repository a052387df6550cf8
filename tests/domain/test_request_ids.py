"""Ids of requests tell when they came, and nobody else has them."""

import time

import pytest

from app.domain.request_ids import RequestIds, number_of, time_in, written


def test_ids_are_all_different_and_tell_their_time() -> None:
    """However many come at once."""
    before = time.time_ns() // 1_000_000
    ids = RequestIds()
    made = [ids.new() for _ in range(50_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == len(made)
    for request_id in made[::100]:
        number = number_of(request_id)
        assert number is not None
        assert number < 1 << 63
        assert written(number) == request_id
        assert before <= time_in(number) <= after


@pytest.mark.parametrize(
    "given",
    [
        "",
        "req_",
        "req_6887137ca5ce061",
        "req_6887137CA5CE061f",
        "req_8887137ca5ce061f",
        "req_6887137ca5ce061f0",
        "x" * 20,
    ],
)
def test_what_isn_t_written_like_ours_has_no_number(given: str) -> None:
    """Otherwise it would be told in other letters than it was given in, or not fit into 63 bits."""
    assert number_of(given) is None
