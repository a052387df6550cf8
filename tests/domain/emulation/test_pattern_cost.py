"""What a client's regex may cost, estimated before anything compiles it."""

import pytest

from app.domain.emulation.pattern_cost import pattern_cost


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("abc", 3),
        ("a{50}", 50),
        ("(a{100}){100}", 10_000),
        ("(?:(?<n>ab){3}|c){2,10}", 80),
        ("a{,5}", 5),
        ("a{ 7 }", 7),
        ("a{0}", 1),
        ("[a-z_]{20}", 20),
        ("[^a]{4}", 100),
        (r"\d{9}", 9),
        (r"\S", 25),
        (r"\p{L}", 750),
        (r"[\p{L}\p{N}]", 1500),
        ("(?i)abc", 12),
        ("\\", 1),
        ("[", 1),
        ("((a{9}", 9),
        ("a)b{9}", 10),
    ],
)
def test_repetitions_and_wide_classes_count_with_all_their_states(pattern: str, states: int) -> None:
    """Groups multiply, classes outside ASCII weigh more, and what is no pattern has a cost, too."""
    assert pattern_cost(pattern).states == states


def test_what_could_hide_a_repetition_costs_too_much() -> None:
    """In extended mode, comments and white space may stand anywhere."""
    assert pattern_cost("(?x) a # [\n{9000}").states > 10**8
    assert pattern_cost("a{99999999999999999999}").states > 10**8


@pytest.mark.parametrize(
    "pattern", ["(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"(a)\1", r"(?<n>a)\k<n>", "(?>a)", "a++", "a{2}+", "(?(1)a)"]
)
def test_backtracking_patterns_are_known(pattern: str) -> None:
    """Looks around, references to groups and possessive repetitions need an engine whose time grows with the square."""
    assert pattern_cost(pattern).backtracks


@pytest.mark.parametrize(
    "pattern", ["^[a-z0-9._%+-]+@[a-z0-9.-]+[.][a-z]{2,}$", "^.*$", r"^\S+$", "(?:a|b)+?", r"^(?<y>\d{4})-\d\d$"]
)
def test_ordinary_patterns_cost_a_look_for_each_character(pattern: str) -> None:
    """Small automata read long texts quickly."""
    cost = pattern_cost(pattern)
    assert (cost.per_character, cost.backtracks) == (1, False)
