"""Figures with bounds, as `benchmarks.abuse` and `benchmarks.ledger` print them."""

from collections.abc import Sequence
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


def report(rows: Sequence[Row]) -> int:
    """Print a table, and return the exit status: 1 if a bound is broken."""
    width = max(len(row.what) for row in rows)
    for row in rows:
        verdict = "holds" if row.holds else "BROKEN"
        print(f"{row.what:<{width}}  {row.figure:10.1f} {row.unit:<12}  bound {row.bound:>8g}  {verdict}")
    return 0 if all(row.holds for row in rows) else 1
