"""Scenarios whose figures have bounds: what `benchmarks.abuse` and `benchmarks.ledger` share."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a scenario."""

    what: str
    figure: float
    unit: str
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bound."""
        return self.figure <= self.bound


Scenario = Callable[[], Awaitable[list[Row]]]


def chosen(purpose: str | None, scenarios: Mapping[str, Scenario]) -> list[str]:
    """The names of the scenarios that the command line asks for; all of them if it names none.

    Args:
        purpose: The program's docstring.
    """
    parser = argparse.ArgumentParser(description=(purpose or "").partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[*scenarios, []], help="default: all")
    return parser.parse_args().scenarios or list(scenarios)


async def run(scenarios: Mapping[str, Scenario], names: Sequence[str], *, longest: float) -> int:
    """Run scenarios, none for longer than so many seconds, and return the exit status."""
    rows: list[Row] = []
    for name in names:
        async with asyncio.timeout(longest):
            rows += await scenarios[name]()
    return report(rows)


def report(rows: Sequence[Row]) -> int:
    """Print a table, and return the exit status: 1 if a bound is broken."""
    width = max(len(row.what) for row in rows)
    for row in rows:
        verdict = "holds" if row.holds else "BROKEN"
        print(f"{row.what:<{width}}  {row.figure:10.1f} {row.unit:<12}  bound {row.bound:>8g}  {verdict}")
    return 0 if all(row.holds for row in rows) else 1
